//! Imports of files that Python wrote: by numpy, and by torch or as torch does.
//!
//! `STEPWELL_PYTHON` names the interpreter, `python3` if unset. Without numpy the tests are skipped and say so.
#![cfg(all(feature = "native", feature = "foreign"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;
use weightstore::{
    ExportOptions, ForeignFile, ImportOptions, NativeConfig, NativeStore, SourceFile,
};

/// A tensor as Python sees it.
struct Expected {
    name: String,
    dtype: String,
    shape: String,
    sha256: String,
}

/// Runs the script; `None` if it can't run here.
fn written_by_python(folder: &Path) -> Option<String> {
    let python = std::env::var("STEPWELL_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/write_models.py");
    let output = Command::new(&python).arg(script).arg(folder).output();
    match output {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        Ok(output) if output.status.code() == Some(77) => {
            println!(
                "skipped: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            None
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("skipped: {python} does not run ({error})");
            None
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Imports a file, and compares each tensor of the store, and of the file exported again.
fn check(folder: &Path, file: &str, expected: &[Expected]) {
    let bytes = std::fs::read(folder.join(file)).unwrap();
    let foreign = ForeignFile::open(file, bytes).unwrap();
    let volume = SimVolume::new(1);
    let storage = StorageConfig::default().with_segment_bytes(16 << 20);
    let config = NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(8 << 20);
    let store = NativeStore::on_volume(volume.handle(), config).unwrap();
    let name = foreign.name();
    let source = SourceFile {
        name: &name,
        source: &foreign,
    };
    let report = store
        .add_model("m", source, &ImportOptions::default())
        .unwrap();
    assert_eq!(report.tensors, expected.len() as u64, "{file}");
    for tensor in expected {
        let loaded = store.load_tensor("m", &tensor.name).unwrap();
        let context = format!("{file}: {}", tensor.name);
        assert_eq!(loaded.dtype().safetensors_name(), tensor.dtype, "{context}");
        assert_eq!(format!("{:?}", loaded.shape()), tensor.shape, "{context}");
        assert_eq!(
            hex(&Sha256::digest(loaded.bytes())),
            tensor.sha256,
            "{context}"
        );
    }
    let mut exported = Vec::new();
    store
        .export_model("m", &mut exported, &ExportOptions::default())
        .unwrap();
    assert!(exported.starts_with(foreign.header().raw()));
}

#[test]
fn what_python_writes_is_imported_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let Some(listing) = written_by_python(folder.path()) else {
        return;
    };
    let mut files: Vec<(String, Vec<Expected>)> = Vec::new();
    for line in listing.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [file, name, dtype, shape, sha256] = fields[..] else {
            panic!("{line}");
        };
        if files.last().is_none_or(|(last, _)| last != file) {
            files.push((file.to_owned(), Vec::new()));
        }
        files.last_mut().unwrap().1.push(Expected {
            name: name.to_owned(),
            dtype: dtype.to_owned(),
            shape: shape.to_owned(),
            sha256: sha256.to_owned(),
        });
    }
    assert!(files.len() >= 5, "{listing}");
    for (file, expected) in &files {
        check(folder.path(), file, expected);
    }
}
