//! Files that Coral wrote, read without it.

use std::path::PathBuf;

use crate::listing::{Files, check_all, decode, parse};

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

fn expected() -> String {
    std::fs::read_to_string(data().join("coral-expected.txt")).unwrap()
}

#[test]
fn files_of_coral_are_read_as_coral_reads_them() {
    let counts = check_all(&data(), &expected());
    assert!(counts["weight"] >= 14, "{counts:?}");
    for kind in weightstore::DeltaKind::all() {
        let count = counts.get(kind.name()).copied().unwrap_or(0);
        let known = kind != weightstore::DeltaKind::OrderedDifference;
        assert_eq!(count > 0, known, "{kind:?} of {counts:?}");
    }
}

#[test]
fn attributes_of_coral_are_understood() {
    let mut files = Files::default();
    let file = files.open(&data(), "coral-gzip.h5");
    let mut named = 0;
    for key in file.weights() {
        let about = file.describe(key).unwrap();
        assert_eq!(about.alias.unwrap().to_string(), *key);
        assert_eq!(about.compression_info, "");
        assert_eq!(about.hash, None);
        if about.name == "float32.weight" {
            assert_eq!(about.layer_type.as_deref(), Some("Linear"));
            assert_eq!(about.model_name.as_deref(), Some("größe"));
            assert_eq!(about.shape, [3, 2]);
            assert!(about.stored_bytes > 0);
            named += 1;
        } else if about.name == "empty" {
            assert_eq!((about.layer_type, about.model_name), (None, None));
            named += 1;
        }
    }
    assert_eq!(named, 2);
}

/// The kinds that are bits of float32 are exact for float32 and float16; what is rounded is said to be.
#[test]
fn what_is_not_exact_is_said_to_be() {
    let mut files = Files::default();
    let mut inexact = 0;
    for line in parse(&expected()) {
        let Some(kind) = &line.delta else { continue };
        let file = files.open(&data(), &line.file);
        let fidelity = decode(&file, &line.key).fidelity;
        let single = line.key.contains(".float32.") || line.key.contains(".float16.");
        match kind.as_str() {
            "xor_float32" | "xor_bfloat16" if single => {
                assert!(fidelity.is_exact(), "{}: {fidelity:?}", line.key);
            }
            "float32_raw" | "compressed" | "exponent_mantissa" | "xor_float32" | "xor_bfloat16" => {
                assert!(!fidelity.lossy);
                inexact += u64::from(!fidelity.is_exact());
                if line.key.contains("special") {
                    assert!(!fidelity.is_exact(), "{}: {fidelity:?}", line.key);
                }
            }
            _ => assert!(fidelity.lossy && !fidelity.is_exact(), "{}", line.key),
        }
    }
    assert!(inexact > 0);
}
