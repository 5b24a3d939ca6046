//! Files that are not models.

use tempfile::tempdir;

use crate::model::{file, write};
use crate::process::weights;

/// A header of that text in front of `data`.
fn with_header(text: &[u8], data: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text, data].concat()
}

#[test]
fn each_bad_file_is_refused_with_its_reason() {
    let whole = file(20);
    let overlap = br#"{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[8],"data_offsets":[4,12]}}"#;
    let dtype = br#"{"a":{"dtype":"F7","shape":[8],"data_offsets":[0,8]}}"#;
    let size = br#"{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,8]}}"#;
    let utf8 = b"{\"\xff\":1}";
    let huge = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("truncated", whole[..whole.len() - 1].to_vec(), "truncated"),
        ("trailing", [&whole[..], b"x"].concat(), ""),
        ("header", whole[..40].to_vec(), "ends inside its header"),
        ("oversized", huge, "more than the limit"),
        ("overlap", with_header(overlap, &[0; 12]), "overlap"),
        ("dtype", with_header(dtype, &[0; 8]), "F7"),
        ("size", with_header(size, &[0; 8]), "32"),
        ("utf8", with_header(utf8, &[]), "UTF-8"),
        ("text", b"this is no safetensors file at all".to_vec(), ""),
        ("empty", Vec::new(), "empty"),
    ];
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let good = write(folder.path(), "good.safetensors", &whole);
    weights("add", &store, &[&good]).done();
    let before = weights("stats", &store, &[]).done().stdout;
    for (name, bytes, reason) in cases {
        let path = write(folder.path(), name, &bytes);
        let answer = weights("add", &store, &[&path]);
        let message = answer.failed_with("not_safetensors");
        assert!(message.contains(name), "{message}");
        assert!(message.contains(reason), "{name}: {message}");
        let fresh = folder.path().join("fresh");
        weights("add", &fresh, &[&path]).failed_with("not_safetensors");
        assert!(!fresh.exists(), "{name}: a store was made for nothing");
        assert_eq!(
            weights("stats", &store, &[]).done().stdout,
            before,
            "{name}"
        );
    }
    let missing = folder.path().join("missing");
    weights("add", &store, &[&missing]).failed_with("file_not_found");
    weights("add", &store, &[&folder.path()]).failed_with("file");
    let name = "n".repeat(600);
    weights("add", &store, &[&"--name", &name, &good]).failed_with("invalid");
    weights("add", &store, &[&"--name", &"", &good]).failed_with("invalid");
    let index = write(
        folder.path(),
        "i.index.json",
        br#"{"weight_map":{"a":"../a"}}"#,
    );
    weights("add", &store, &[&index]).failed_with("not_safetensors");
    assert_eq!(weights("stats", &store, &[]).done().stdout, before);
}

#[test]
fn outputs_that_can_not_be_written_are_refused() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let path = write(folder.path(), "m.safetensors", &file(21));
    weights("add", &store, &[&path]).done();
    let nowhere = folder.path().join("nowhere/out");
    weights("get", &store, &[&"m", &"-o", &nowhere]).failed_with("file_not_found");
    let beside = folder.path();
    weights("get", &store, &[&"m", &"--force", &"-o", &beside]).failed_with("file");
    let device = folder.path().join("device");
    let socket = std::os::unix::net::UnixListener::bind(&device).unwrap();
    weights("get", &store, &[&"m", &"--force", &"-o", &device]).failed_with("file");
    assert!(!device.metadata().unwrap().is_file());
    drop(socket);
    let part = |name: &str| name.ends_with(".part");
    let names = std::fs::read_dir(folder.path()).unwrap();
    assert!(
        names
            .map(|entry| entry.unwrap())
            .all(|entry| !part(&entry.file_name().to_string_lossy()))
    );
}
