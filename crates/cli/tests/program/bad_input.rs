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
fn indices_say_what_is_missing() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let shard = with_header(
        br#"{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        b"1",
    );
    write(folder.path(), "one.safetensors", &shard);
    let index = |name: &str, text: &str| write(folder.path(), name, text.as_bytes());
    let absent = index(
        "absent.index.json",
        r#"{"weight_map":{"x":"one.safetensors","y":"two.safetensors"}}"#,
    );
    let answer = weights("add", &store, &[&absent]);
    let message = answer.failed_with("file_not_found");
    for word in ["absent.index.json", "two.safetensors"] {
        assert!(message.contains(word), "{message}");
    }
    assert!(!store.exists(), "a store was made for nothing");
    let other = index(
        "other.index.json",
        r#"{"weight_map":{"x":"one.safetensors","y":"one.safetensors"}}"#,
    );
    let message = weights("add", &store, &[&other]).failed_with("not_safetensors");
    assert!(message.contains("\"y\""), "{message}");
    let whole = index(
        "whole.index.json",
        r#"{"weight_map":{"x":"one.safetensors"}}"#,
    );
    weights("add", &store, &[&whole]).done();
    let answer = weights(
        "get",
        &store,
        &[&"whole", &"--file", &"no", &"-o", &"never-written"],
    );
    let hint = answer.json()["error"]["hint"].as_str().unwrap().to_owned();
    answer.failed_with("model_not_found");
    assert!(hint.contains("weights show"), "{hint}");
}

#[test]
fn a_store_that_can_not_be_made_is_told() {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "m.safetensors", &file(22));
    let nowhere = std::path::Path::new("/proc/stepwell-nowhere");
    let message = weights("add", nowhere, &[&path]).failed_with("not_a_store");
    assert!(message.contains("can't be made"), "{message}");
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
