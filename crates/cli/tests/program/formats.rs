//! Models of other formats.

use std::path::Path;

use core_view::TensorStorage;
use core_view::safetensors::SafetensorsFile;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::model::write;
use crate::process::weights;

/// A zip archive of files as they are.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = rawzip::ZipArchiveWriter::new(Vec::new());
    for (name, content) in files {
        let (mut entry, config) = archive.new_file(*name).start().unwrap();
        let mut writer = config.wrap(&mut entry);
        std::io::copy(&mut &content[..], &mut writer).unwrap();
        let (_, descriptor) = writer.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

/// An array as numpy writes it.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let len = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], text.as_bytes(), data].concat()
}

/// What `torch.save` writes for a dictionary of one tensor of two floats.
fn state_dict(name: &str, numbers: [f32; 2]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X".to_vec();
    pickle.extend_from_slice(&(name.len() as u32).to_le_bytes());
    pickle.extend_from_slice(name.as_bytes());
    pickle.extend_from_slice(
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000\
          X\x03\0\0\0cpuK\x02tQK\0K\x02\x85K\x01\x85\x89}tRs.",
    );
    zip(&[
        ("archive/data.pkl", &pickle),
        ("archive/data/0", &numbers.map(f32::to_le_bytes).concat()),
    ])
}

fn opened(path: &Path) -> SafetensorsFile {
    let bytes = std::fs::read(path).unwrap();
    SafetensorsFile::from_storage(TensorStorage::from_vec(bytes)).unwrap()
}

fn restored(store: &Path, model: &str, folder: &Path) -> SafetensorsFile {
    let path = folder.join(format!("{model}.out"));
    weights("get", store, &[&model, &"-o", &path]).done();
    opened(&path)
}

#[test]
fn each_format_is_told_by_its_content() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let bias = npy(
        ">f4",
        "(2,)",
        &[1.5_f32, -2.0].map(f32::to_be_bytes).concat(),
    );
    let archive = zip(&[
        ("a.npy", &bias),
        ("b/c.npy", &npy("|u1", "(3,)", &[1, 2, 3])),
    ]);
    // Whatever they are called.
    for (file, bytes, format) in [
        ("bias.npy", bias, "NPY"),
        ("arrays.bin", archive, "NPZ"),
        ("model.safetensors", state_dict("w", [1.0, 2.0]), "PyTorch"),
    ] {
        let path = write(folder.path(), file, &bytes);
        let added = weights("add", &store, &[&path]).done().json();
        assert_eq!(added["converted_from"], format);
        assert_eq!(added["skipped_values"], 0);
    }
    let bias = restored(&store, "bias", folder.path());
    assert_eq!(
        bias.tensor("bias").unwrap().to_vec::<f32>().unwrap(),
        [1.5, -2.0]
    );
    let arrays = restored(&store, "arrays", folder.path());
    assert_eq!(arrays.storage("b/c").unwrap().as_slice(), [1, 2, 3]);
    let model = restored(&store, "model", folder.path());
    assert_eq!(
        model.tensor("w").unwrap().to_vec::<f32>().unwrap(),
        [1.0, 2.0]
    );
    let shown = weights("show", &store, &[&"model"]).done().json();
    assert_eq!(shown["metadata"]["stepwell.source_format"], "PyTorch");
    assert_eq!(shown["files"][0]["file"], "model.safetensors");
}

#[test]
fn a_sharded_state_dict_becomes_a_sharded_safetensors_model() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    write(folder.path(), "p-1.bin", &state_dict("a", [1.0, 2.0]));
    write(folder.path(), "p-2.bin", &state_dict("b", [3.0, 4.0]));
    let index =
        json!({"metadata": {"total_size": 16}, "weight_map": {"a": "p-1.bin", "b": "p-2.bin"}});
    let path = write(
        folder.path(),
        "p.bin.index.json",
        index.to_string().as_bytes(),
    );
    let added = weights("add", &store, &[&path]).done().json();
    assert_eq!(
        (&added["model"], &added["tensors"]),
        (&json!("p"), &json!(2))
    );
    let out = folder.path().join("out");
    weights("get", &store, &[&"p", &"-o", &out]).done();
    let text = std::fs::read(out.join("p.safetensors.index.json")).unwrap();
    let index: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(index["metadata"]["total_size"], 16);
    assert_eq!(
        index["weight_map"],
        json!({"a": "p-1.safetensors", "b": "p-2.safetensors"})
    );
    let second = opened(&out.join("p-2.safetensors"));
    assert_eq!(
        second.tensor("b").unwrap().to_vec::<f32>().unwrap(),
        [3.0, 4.0]
    );
}

#[test]
fn what_can_not_be_imported_is_refused_before_a_store_is_made() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let evil = zip(&[("m/data.pkl", b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.")]);
    for (name, bytes, reason) in [
        ("evil.pt", evil, "os.system"),
        (
            "hdf",
            b"\x89HDF\r\n\x1a\nxxxxxxxx".to_vec(),
            "archive of its own",
        ),
        ("gguf", b"GGUF\x03\0\0\0xxxxxxxx".to_vec(), "quantised"),
        ("text.zip", zip(&[("a.txt", b"a")]), "neither"),
        ("object.npy", npy("|O", "(1,)", &[0; 8]), "|O"),
    ] {
        let path = write(folder.path(), name, &bytes);
        let message = weights("add", &store, &[&path]).failed_with("not_importable");
        assert!(message.contains(reason), "{message}");
        assert!(!store.exists(), "{name}");
    }
    let mut damaged = zip(&[("a.npy", &npy("|u1", "(300000,)", &[7; 300_000]))]);
    damaged[200_000] ^= 1;
    let path = write(folder.path(), "damaged.npz", &damaged);
    let message = weights("add", &store, &[&path]).failed_with("not_importable");
    assert!(
        message.contains("checksum") && message.contains("fetch it again"),
        "{message}"
    );
    assert_eq!(
        weights("ls", &store, &[]).done().json()["models"],
        json!([])
    );
}
