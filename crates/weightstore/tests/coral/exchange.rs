//! The exchange with an installed Coral.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use core_view::DType;
use weightstore::{
    CoralFile, CoralFileWriter, Hdf5Compression, Hdf5Config, Hdf5Mode, Hdf5Store, WeightStore,
    WeightTensor,
};

use crate::listing::{check_all, decode, parse};

/// A Python that has Coral, if one is named.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("STEPWELL_CORAL_PYTHON").map(PathBuf::from);
    if named.is_none() {
        println!("skipped: STEPWELL_CORAL_PYTHON names no Python that has Coral");
    }
    named
}

fn run(python: &Path, command: &str, target: &Path) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/coral/exchange.py");
    let output = Command::new(python)
        .args(["-B", script, command])
        .arg(target)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_coral_writes_is_read() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let text = run(&python, "write", directory.path());
    let counts = check_all(directory.path(), &text);
    println!("{counts:?}");
    assert!(counts["weight"] > 100 && counts.len() >= 6, "{counts:?}");
}

/// Everything that numpy has a name for, of several shapes.
fn weights() -> Vec<WeightTensor> {
    let mut weights = Vec::new();
    for dtype in DType::all() {
        for shape in [&[][..], &[3], &[0, 3], &[4, 2, 3], &[300, 1024]] {
            let Some(width) = dtype.size_bytes() else {
                continue;
            };
            if shape.len() == 2 && shape[0] == 300 && dtype != DType::F32 {
                continue;
            }
            let len = width * shape.iter().product::<u64>() as usize;
            let bytes: Vec<u8> = match dtype {
                DType::Bool => (0..len).map(|i| u8::from(i % 3 == 0)).collect(),
                _ => (0..len).map(|i| (7 * i + i / 251) as u8).collect(),
            };
            let weight = WeightTensor::new(format!("{dtype}/größe"), dtype, shape, bytes).unwrap();
            weights.push(
                weight
                    .with_layer_type("Linear")
                    .with_compression_info("{\"bits\": 4}"),
            );
        }
    }
    // Longer than the dimensions of a chunk.
    let long: Vec<f32> = (0..300_000).map(|i| i as f32).collect();
    weights.push(WeightTensor::new("long", DType::F32, &[300_000], long).unwrap());
    weights
}

/// Types that numpy knows by name without an extension.
fn has_numpy_name(weight: &WeightTensor) -> bool {
    use DType::{Bool, C64, F16, F32, F64, I8, I16, I32, I64, U8, U16, U32, U64};
    let known = [
        Bool, U8, I8, U16, I16, U32, I32, U64, I64, F16, F32, F64, C64,
    ];
    known.contains(&weight.dtype())
}

fn check_read(text: &str, weights: &[WeightTensor]) {
    let mut lines = parse(text);
    for weight in weights.iter().filter(|weight| has_numpy_name(weight)) {
        let key = weight.compute_alias().to_string();
        let at = lines.iter().position(|line| line.key == key);
        lines.swap_remove(at.unwrap()).check(weight);
    }
    lines.retain(|line| line.delta.is_none());
    assert!(lines.is_empty(), "{}", lines.len());
}

#[test]
fn what_is_written_is_read_by_coral() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let weights = weights();
    for compression in ["gzip:4", "gzip:9", "lzf", "none"] {
        let path = directory.path().join("ours.h5");
        let compression: Hdf5Compression = compression.parse().unwrap();
        let mut writer = CoralFileWriter::new(compression);
        for weight in &weights {
            assert!(writer.add(weight).unwrap());
        }
        let mut file = std::fs::File::create(&path).unwrap();
        writer.finish_to(&mut file).unwrap();
        check_read(&run(&python, "read", &path), &weights);
    }
}

#[test]
fn deltas_that_are_passed_on_decode_the_same_in_coral() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    run(&python, "write", directory.path());
    let bytes = std::fs::read(directory.path().join("deltas.h5")).unwrap();
    let theirs = CoralFile::open("deltas.h5", Arc::new(bytes)).unwrap();
    let mut writer = CoralFileWriter::new(Hdf5Compression::Gzip { level: 1 });
    for key in theirs.weights() {
        writer.add(&theirs.weight(key).unwrap()).unwrap();
    }
    for key in theirs.deltas() {
        writer.add_delta(&theirs.delta(key).unwrap()).unwrap();
    }
    let path = directory.path().join("passed-on.h5");
    let mut bytes = Vec::new();
    writer.finish_to(&mut bytes).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let ours = CoralFile::open("passed-on.h5", Arc::new(bytes)).unwrap();
    let mut deltas = 0;
    for line in parse(&run(&python, "read", &path)) {
        if line.delta.is_some() {
            line.check(&decode(&ours, &line.key).weight);
            deltas += 1;
        }
    }
    assert!(deltas > 50, "{deltas}");
}

/// A file that Coral wrote is gone on with, and Coral goes on with it in turn.
#[test]
fn a_file_of_coral_is_gone_on_with() {
    let Some(python) = python() else { return };
    let directory = tempfile::tempdir().unwrap();
    let text = run(&python, "write", directory.path());
    let path = directory.path().join("weights-gzip.h5");
    let store =
        Hdf5Store::open(&path, Hdf5Config::default().with_mode(Hdf5Mode::ReadWrite)).unwrap();
    let mut expected: Vec<WeightTensor> = Vec::new();
    let keys: Vec<String> = parse(&text)
        .into_iter()
        .filter(|line| line.file == "weights-gzip.h5")
        .map(|line| line.key)
        .collect();
    let (gone, kept) = keys.split_first().unwrap();
    assert!(store.delete(&gone.parse().unwrap()).unwrap());
    for key in kept {
        expected.push(store.load(&key.parse().unwrap()).unwrap().unwrap());
    }
    let added = WeightTensor::new("added", DType::F32, &[2], vec![1.0_f32, 2.0]).unwrap();
    store.store(&added, None).unwrap();
    expected.push(added);
    store.close().unwrap();
    check_read(&run(&python, "read", &path), &expected);
}
