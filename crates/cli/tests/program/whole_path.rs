//! Models in, models out.

use std::io::Read;
use std::process::{Command, Stdio};

use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::tempdir;

use crate::model::{TENSORS, file, noise, write};
use crate::process::{fields, stepwell, weights};

#[test]
fn a_model_goes_in_and_comes_out() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let bytes = file(1);
    let path = write(folder.path(), "first.safetensors", &bytes);

    let added = weights("add", &store, &[&path]).done().json();
    let names = [
        "converted_from",
        "deduplicated_tensors",
        "delta_tensors",
        "elapsed_s",
        "logical_bytes",
        "model",
        "new_tensors",
        "skipped_values",
        "stored_bytes",
        "tensors",
    ];
    assert_eq!(fields(&added), names);
    assert_eq!(added["model"], "first");
    assert_eq!(added["tensors"], TENSORS);
    assert_eq!(added["new_tensors"], TENSORS);
    assert_eq!(added["logical_bytes"], bytes.len());

    let listed = weights("ls", &store, &[]).done().json();
    assert_eq!(listed["models"].as_array().unwrap().len(), 1);
    assert_eq!(listed["models"][0]["model"], "first");
    assert_eq!(listed["models"][0]["tensors"], TENSORS);

    let shown = weights("show", &store, &[&"first"]).done().json();
    let tensors = shown["files"][0]["tensors"].as_array().unwrap();
    assert_eq!(tensors.len() as u64, TENSORS);
    assert_eq!(
        fields(&tensors[0]),
        [
            "dtype",
            "hash",
            "len_bytes",
            "shape",
            "stored_bytes",
            "tensor"
        ]
    );
    let embed = tensors
        .iter()
        .find(|tensor| tensor["tensor"] == "embed.weight");
    let embed = embed.unwrap();
    assert_eq!(embed["shape"], json!([700, 512]));
    assert!(embed["stored_bytes"].as_u64().unwrap() >= 700 * 512 * 4);

    let output = folder.path().join("out.safetensors");
    let restored = weights("get", &store, &[&"first", &"-o", &output]);
    assert_eq!(restored.done().json()["len_bytes"], bytes.len());
    let out = std::fs::read(&output).unwrap();
    assert_eq!(Sha256::digest(&out), Sha256::digest(&bytes));

    // A target that is there is kept unless it may be replaced.
    weights("get", &store, &[&"first", &"-o", &output]).failed_with("target_exists");
    weights("get", &store, &[&"first", &"-o", &output, &"--force"]).done();
}

#[test]
fn content_is_stored_once_and_goes_with_its_last_model() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let bytes = file(2);
    let path = write(folder.path(), "a.safetensors", &bytes);
    weights("add", &store, &[&path]).done();

    let second = weights("add", &store, &[&"--name", &"b", &path])
        .done()
        .json();
    assert_eq!(second["new_tensors"], 0);
    assert_eq!(second["deduplicated_tensors"], TENSORS);

    let stats = weights("stats", &store, &[]).done().json();
    assert_eq!(
        fields(&stats),
        [
            "depths",
            "encodings",
            "logical_bytes",
            "models",
            "ratio",
            "saved",
            "stored_bytes",
            "tensors",
            "unnamed_bytes",
            "unnamed_tensors"
        ]
    );
    let tensor_bytes: u64 = 700 * 512 * 4 + 128 * 300 * 2 + 300 * 2 + 8;
    assert_eq!(stats["saved"]["dedup_bytes"], tensor_bytes);
    assert_eq!(stats["models"], 2);
    assert_eq!(stats["tensors"], TENSORS);
    assert_eq!(stats["logical_bytes"], 2 * bytes.len());
    assert!(stats["ratio"].as_f64().unwrap() < 0.6);

    let removed = weights("rm", &store, &[&"a"]).done().json();
    assert_eq!(removed["removed_tensors"], 0);
    let output = folder.path().join("b.out");
    weights("get", &store, &[&"b", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), bytes);

    let verified = weights("verify", &store, &[]).done().json();
    assert_eq!(
        fields(&verified),
        [
            "checked",
            "checked_bytes",
            "corrupt",
            "stopped_at",
            "unreachable"
        ]
    );
    assert_eq!(verified["checked_bytes"], tensor_bytes);
    let collected = weights("gc", &store, &[]).done().json();
    assert_eq!(collected["removed_tensors"], 0);
    assert!(verified["checked"].as_u64().unwrap() > TENSORS);
    assert_eq!(verified["corrupt"], json!([]));

    let removed = weights("rm", &store, &[&"b"]).done().json();
    assert_eq!(removed["removed_tensors"], TENSORS);
    let stats = weights("stats", &store, &[]).done().json();
    assert_eq!(
        (stats["models"].as_u64(), stats["tensors"].as_u64()),
        (Some(0), Some(0))
    );
    weights("get", &store, &[&"b", &"-o", &output, &"--force"]).failed_with("model_not_found");
    assert_eq!(std::fs::read(&output).unwrap(), bytes);
}

#[test]
fn codecs_shrink_what_can_be_shrunk_and_give_it_back() {
    let folder = tempdir().unwrap();
    let mut bytes = file(3);
    let len = bytes.len();
    bytes[len - 800_000..].fill(7);
    let path = write(folder.path(), "m.safetensors", &bytes);
    for codec in ["auto", "gzip", "gzip:9", "lz4"] {
        let store = folder.path().join(codec.replace(':', "-"));
        let added = weights("add", &store, &[&"--codec", &codec, &path])
            .done()
            .json();
        assert!(added["stored_bytes"].as_u64().unwrap() < len as u64 - 500_000);
        let output = folder.path().join("out");
        weights("get", &store, &[&"m", &"--force", &"-o", &output]).done();
        assert_eq!(std::fs::read(&output).unwrap(), bytes, "{codec}");
    }
}

#[test]
fn several_files_are_acknowledged_one_by_one() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let a = write(folder.path(), "a.safetensors", &file(4));
    let b = write(folder.path(), "b.safetensors", &file(5));
    let bad = write(folder.path(), "c.safetensors", b"{}");
    let answer = weights("add", &store, &[&a, &b, &bad]);
    answer.failed_with("not_safetensors");
    let lines = answer.lines();
    assert_eq!(
        (&lines[0]["model"], &lines[1]["model"]),
        (&json!("a"), &json!("b"))
    );
    assert_eq!(lines.len(), 3);
    let listed = weights("ls", &store, &[]).done().json();
    assert_eq!(listed["models"].as_array().unwrap().len(), 2);
}

#[test]
fn a_sharded_model_comes_back_as_its_files() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let input = folder.path().join("in");
    std::fs::create_dir(&input).unwrap();
    let mut map = serde_json::Map::new();
    for (seed, shard) in [(6_u64, "m-1.safetensors"), (7, "m-2.safetensors")] {
        let name = format!("t{seed}");
        let header = core_view::safetensors::HeaderBuilder::new()
            .tensor(&name, core_view::DType::U8, &[3000])
            .build()
            .unwrap();
        write(&input, shard, &[header.raw(), &noise(seed, 3000)].concat());
        map.insert(name, json!(shard));
    }
    let index = json!({"metadata": {"total_size": 6000}, "weight_map": map}).to_string();
    let path = write(&input, "m.safetensors.index.json", index.as_bytes());
    let added = weights("add", &store, &[&path]).done().json();
    assert_eq!(
        (&added["model"], &added["tensors"]),
        (&json!("m"), &json!(2))
    );

    let output = folder.path().join("out");
    weights("get", &store, &[&"m", &"-o", &output]).done();
    for entry in std::fs::read_dir(&input).unwrap() {
        let entry = entry.unwrap();
        let restored = std::fs::read(output.join(entry.file_name())).unwrap();
        assert_eq!(restored, std::fs::read(entry.path()).unwrap());
    }
    assert_eq!(std::fs::read_dir(&output).unwrap().count(), 3);
    let one = folder.path().join("one");
    weights(
        "get",
        &store,
        &[&"m", &"--file", &"m-2.safetensors", &"-o", &one],
    )
    .done();
    assert_eq!(
        std::fs::read(&one).unwrap(),
        std::fs::read(input.join("m-2.safetensors")).unwrap()
    );
}

#[test]
fn other_content_under_a_taken_name_needs_to_be_allowed() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let old = write(folder.path(), "old", &file(8));
    let new = write(folder.path(), "new", &file(9));
    weights("add", &store, &[&"--name", &"m", &old]).done();
    // The same content again is no change.
    let again = weights("add", &store, &[&"--name", &"m", &old])
        .done()
        .json();
    assert_eq!(again["new_tensors"], 0);
    let refused = weights("add", &store, &[&"--name", &"m", &new]).failed_with("model_exists");
    assert!(refused.contains("--replace"), "{refused}");
    let output = folder.path().join("out");
    weights("get", &store, &[&"m", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), file(8));
    weights("add", &store, &[&"--name", &"m", &"--replace", &new]).done();
    weights("get", &store, &[&"m", &"--force", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), file(9));
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    for arguments in [
        &["weights", "add", "--store", "s"][..],
        &["weights", "ls"],
        &["weights", "add", "--store", "s", "--codec", "zip", "f"],
        &["weights", "add", "--store", "s", "--name", "n", "f", "g"],
        &["weights", "add", "--store", "s", "a/f", "b/f"],
        &["nonsense"],
    ] {
        let answer = stepwell(arguments);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.starts_with("error: "), "{answer:?}");
        assert_eq!(answer.stdout, "");
        let json = stepwell(std::iter::once(&"--json").chain(arguments));
        assert_eq!(
            (json.code, &json.json()["error"]["kind"]),
            (2, &json!("usage"))
        );
    }
    assert_eq!(stepwell(["--help"]).code, 0);
    assert_eq!(stepwell(["--version"]).code, 0);
    assert!(!store.exists());
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let path = write(folder.path(), "a.safetensors", &file(10));
    weights("add", &store, &[&path]).done();
    let mut child = Command::new(env!("CARGO_BIN_EXE_stepwell"))
        .args(["weights", "show", "a", "--store"])
        .arg(&store)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(stderr, "");
}
