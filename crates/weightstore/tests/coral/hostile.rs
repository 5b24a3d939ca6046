//! Files that are damaged, or made to do damage.

use std::path::PathBuf;
use std::sync::Arc;

use weightstore::{AliasHasher, CoralFileWriter};
use weightstore::{
    CoralFile, Delta, DeltaKind, Hdf5Compression, WeightError, WeightTensor, decode_coral_delta,
};

use core_view::DType;

const FILES: [&str; 4] = [
    "coral-gzip.h5",
    "coral-lzf.h5",
    "coral-none.h5",
    "coral-deltas.h5",
];

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    std::fs::read(path.join(name)).unwrap()
}

/// Reads all that can be read; every tensor must have the hash that it is filed under.
fn read_all(bytes: Vec<u8>) -> (u64, u64) {
    let (mut whole, mut refused) = (0, 0);
    let file = match CoralFile::open("hostile.h5", Arc::new(bytes)) {
        Ok(file) => file,
        Err(_) => return (0, 1),
    };
    for key in file.weights() {
        match file.weight(key) {
            Ok(weight) => {
                let about = file.describe(key).unwrap();
                let mut hasher = AliasHasher::new(weight.dtype(), weight.shape());
                hasher.update(weight.bytes());
                if let Some(alias) = about.alias {
                    assert_eq!(alias, hasher.finish());
                }
                whole += 1;
            }
            Err(_) => refused += 1,
        }
    }
    for key in file.deltas() {
        let decoded = file.delta(key).and_then(|delta| {
            let reference = file.weight(&delta.reference_hash().to_string())?;
            decode_coral_delta(&delta, &reference)
        });
        match decoded {
            Ok(_) => whole += 1,
            Err(_) => refused += 1,
        }
    }
    (whole, refused)
}

#[test]
fn damaged_bytes_never_pass_for_content() {
    let (mut whole, mut refused) = (0, 0);
    for name in FILES {
        let bytes = fixture(name);
        let step = (bytes.len() / 200).max(1);
        for (round, at) in (0..bytes.len()).step_by(step).enumerate() {
            let mut damaged = bytes.clone();
            damaged[at] ^= [0x01, 0x80, 0xFF][round % 3];
            let counts = read_all(damaged);
            whole += counts.0;
            refused += counts.1;
        }
    }
    assert!(whole > 0 && refused > 0, "{whole} {refused}");
}

#[test]
fn files_that_end_early_are_refused() {
    for name in FILES {
        let bytes = fixture(name);
        let expected = read_all(bytes.clone());
        assert_eq!(expected.1, 0, "{name}");
        for part in 0..40 {
            let len = bytes.len() * part / 40;
            let found = read_all(bytes[..len].to_vec());
            assert!(found.0 < expected.0, "{name} cut to {len}");
        }
    }
}

/// Replaces every place where a dataset states its dimensions.
fn claim(mut bytes: Vec<u8>, from: [u64; 2], to: [u64; 2]) -> Vec<u8> {
    let join = |dimensions: [u64; 2]| dimensions.map(u64::to_le_bytes).concat();
    let (from, to) = (join(from), join(to));
    let mut changed = 0;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(&from) {
            bytes[at..at + to.len()].copy_from_slice(&to);
            changed += 1;
        }
    }
    assert!(changed > 0);
    bytes
}

#[test]
fn a_claim_of_terabytes_is_refused_before_allocation() {
    for name in ["coral-gzip.h5", "coral-lzf.h5", "coral-none.h5"] {
        for to in [
            [1 << 40, 2],
            [1 << 21, 1 << 21],
            [u64::MAX, 2],
            [1 << 62, 8],
        ] {
            let bytes = claim(fixture(name), [3, 2], to);
            let file = CoralFile::open(name, Arc::new(bytes)).unwrap();
            let mut refused = 0;
            for key in file.weights() {
                match file.weight(key) {
                    Err(WeightError::Hdf5 { .. }) => refused += 1,
                    Err(other) => panic!("{name} {key}: {other:?}"),
                    Ok(weight) => assert_ne!(weight.shape(), to, "{name}"),
                }
            }
            assert!(refused > 0, "{name}");
        }
    }
}

#[test]
fn what_is_not_hdf5_is_refused() {
    for bytes in [vec![], vec![0; 4096], b"\x89HDF\r\n\x1a\n".to_vec()] {
        let refused = CoralFile::open("other.h5", Arc::new(bytes));
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("other.h5") && message.contains("Coral"),
            "{message}"
        );
    }
}

/// A stream that inflates to more than the tensor has is not inflated further.
#[test]
fn a_stream_longer_than_its_tensor_is_refused() {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    let stream = encoder.finish().unwrap();
    let reference = WeightTensor::new("w", DType::F32, &[2], vec![1.0_f32, 2.0]).unwrap();
    let hash = reference.compute_alias();
    let delta = Delta::new(DeltaKind::Compressed, DType::F32, &[2], hash, stream)
        .with_metadata(r#"{"original_shape": [2]}"#);
    let refused = decode_coral_delta(&delta, &reference).unwrap_err();
    assert!(refused.to_string().contains("too long"), "{refused}");
}

#[test]
fn texts_that_hdf5_would_cut_are_refused() {
    let weight = WeightTensor::new("w\0x", DType::U8, &[1], vec![1_u8]).unwrap();
    let mut writer = CoralFileWriter::new(Hdf5Compression::None);
    assert!(matches!(
        writer.add(&weight),
        Err(WeightError::InvalidName { .. })
    ));
    let weight = WeightTensor::new("w", DType::U8, &[1], vec![1_u8]).unwrap();
    let weight = weight.with_compression_info("no JSON");
    assert!(matches!(
        writer.add(&weight),
        Err(WeightError::InvalidName { .. })
    ));
}
