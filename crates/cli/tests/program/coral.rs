//! Files of Coral's, in and out.

use std::path::PathBuf;
use std::sync::Arc;

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use serde_json::Value;
use tempfile::tempdir;
use weightstore::CoralFile;

use crate::model::{TENSORS, file, write};
use crate::process::{fields, weights};

/// A file that Coral wrote.
fn fixture(name: &str) -> PathBuf {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../weightstore/tests/data");
    PathBuf::from(data).join(name)
}

#[test]
fn deltas_of_coral_become_tensors_that_say_how_exact_they_are() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let source = fixture("coral-deltas.h5");
    let imported = weights("import-h5", &store, &[&source]).done().json();
    let names = [
        "deduplicated_tensors",
        "delta_tensors",
        "deltas",
        "elapsed_s",
        "file_bytes",
        "logical_bytes",
        "model",
        "new_tensors",
        "skipped",
        "stored_bytes",
        "tensors",
    ];
    assert_eq!(fields(&imported), names);
    assert_eq!(imported["model"], "coral-deltas");
    assert_eq!(imported["skipped"], Value::Array(Vec::new()));
    let deltas = imported["deltas"].as_array().unwrap();
    let names = [
        "changed_elements",
        "elements",
        "exact",
        "key",
        "kind",
        "lossless_in_coral",
        "tensor",
        "unknown_elements",
    ];
    assert_eq!(fields(&deltas[0]), names);
    let of = |key: &str| deltas.iter().find(|delta| delta["key"] == key).unwrap();
    let exact = of("xor_float32.float32.special");
    assert_eq!(
        (&exact["exact"], &exact["elements"]),
        (&Value::Bool(true), &32.into())
    );
    let rounded = of("float32_raw.float32.special");
    assert_eq!(rounded["lossless_in_coral"], true);
    assert_eq!(rounded["exact"], false);
    assert!(
        rounded["unknown_elements"].as_u64().unwrap() > 0,
        "{rounded}"
    );
    assert_eq!(of("sparse.float32.finite")["lossless_in_coral"], false);

    let shown = weights("show", &store, &[&"coral-deltas"]).done().json();
    let tensors = shown["files"][0]["tensors"].as_array().unwrap();
    assert_eq!(tensors.len() as u64, imported["tensors"].as_u64().unwrap());
    let again = weights("import-h5", &store, &[&source]).done().json();
    assert_eq!(again["new_tensors"], 0);
}

#[test]
fn a_file_of_coral_goes_in_and_out() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let target = folder.path().join("out.h5");
    weights(
        "import-h5",
        &store,
        &[&fixture("coral-gzip.h5"), &"--name", &"m"],
    )
    .done();
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 4] = [&"m", &target, &"--compression", &"lzf"];
    let exported = weights("export-h5", &store, &arguments).done().json();
    let names = [
        "deduplicated_tensors",
        "elapsed_s",
        "len_bytes",
        "logical_bytes",
        "model",
        "path",
        "tensors",
    ];
    assert_eq!(fields(&exported), names);
    let open = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        CoralFile::open("f", Arc::new(bytes)).unwrap()
    };
    let (theirs, ours) = (open(&fixture("coral-gzip.h5")), open(&target));
    assert_eq!(ours.weights(), theirs.weights());
    for key in theirs.weights() {
        let (expected, found) = (theirs.weight(key).unwrap(), ours.weight(key).unwrap());
        assert_eq!(found.bytes(), expected.bytes());
        assert_eq!(found.metadata().layer_type, expected.metadata().layer_type);
        let model = expected.metadata().model_name.unwrap_or("m".to_owned());
        assert_eq!(found.metadata().model_name, Some(model));
    }
    weights("export-h5", &store, &arguments).failed_with("target_exists");
}

#[test]
fn every_model_can_go_to_coral() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let model = write(folder.path(), "m.safetensors", &file(1));
    let target = folder.path().join("m.h5");
    weights("add", &store, &[&model]).done();
    let refused = weights(
        "export-h5",
        &store,
        &[&"m", &target, &"--content-bytes-max", &"1KiB"],
    );
    assert!(
        refused
            .failed_with("too_large")
            .contains("--content-bytes-max")
    );
    assert!(!target.exists());
    let exported = weights("export-h5", &store, &[&"m", &target]).done().json();
    assert_eq!(exported["tensors"], TENSORS);
    let again = folder.path().join("again");
    let imported = weights("import-h5", &again, &[&target, &"--model", &"m"]);
    assert_eq!(imported.done().json()["tensors"], TENSORS);
    weights("import-h5", &again, &[&target, &"--model", &"x"]).failed_with("model_not_found");
}

#[test]
fn a_tensor_that_hdf5_does_not_take_is_named() {
    let folder = tempdir().unwrap();
    let (store, target) = (folder.path().join("store"), folder.path().join("m.h5"));
    let builder = HeaderBuilder::new().tensor("deep", DType::U8, &[1; 33]);
    let header = builder.build().unwrap();
    let bytes = [header.raw(), &[7]].concat();
    let model = write(folder.path(), "m.safetensors", &bytes);
    weights("add", &store, &[&model]).done();
    let refused = weights("export-h5", &store, &[&"m", &target]).failed_with("invalid");
    assert!(refused.contains("\"deep\" has 33 dimensions"), "{refused}");
    assert!(!target.exists());
}

#[test]
fn damaged_content_is_told_from_a_damaged_file() {
    let folder = tempdir().unwrap();
    let mut bytes = std::fs::read(fixture("coral-none.h5")).unwrap();
    let whole = CoralFile::open("f", Arc::new(bytes.clone())).unwrap();
    let weight = whole.weight(&whole.weights()[0]).unwrap();
    let len = weight.bytes().len();
    let at = bytes.windows(len).position(|part| part == weight.bytes());
    bytes[at.unwrap()] ^= 1;
    let damaged = write(folder.path(), "damaged.h5", &bytes);
    let refused = weights("import-h5", &folder.path().join("store"), &[&damaged]);
    assert!(
        refused.failed_with("corrupt").contains("hash"),
        "{refused:?}"
    );
}

#[test]
fn what_is_no_file_of_coral_is_refused_before_a_store_is_made() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let other = write(folder.path(), "other.h5", b"not HDF5");
    weights("import-h5", &store, &[&other]).failed_with("not_coral");
    let mut cut = std::fs::read(fixture("coral-none.h5")).unwrap();
    cut.truncate(cut.len() / 2);
    let cut = write(folder.path(), "cut.h5", &cut);
    weights("import-h5", &store, &[&cut]).failed_with("not_coral");
    assert!(!store.exists());
}
