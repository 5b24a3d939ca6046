//! Directories that are no stores, or not usable ones.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crc_fast::{CrcAlgorithm, checksum};
use tempfile::tempdir;
use tier_nvme::StorageConfig;
use weightstore::{NativeConfig, NativeStore, WeightStore};

use crate::model::{file, write};
use crate::mount::Mount;
use crate::process::{answer_of, stepwell, weights};

const READING: [(&str, &[&str]); 6] = [
    ("ls", &[]),
    ("show", &["m"]),
    ("stats", &[]),
    ("verify", &[]),
    ("get", &["m", "-o", "never-written"]),
    ("rm", &["m"]),
];

/// Runs every command that reads, and `rm`; each must fail with this kind.
fn all_refused(store: &Path, kind: &str) {
    for (command, arguments) in READING {
        let mut all = vec![
            "--json",
            "weights",
            command,
            "--store",
            store.to_str().unwrap(),
        ];
        all.extend(arguments);
        stepwell(all).failed_with(kind);
    }
    assert!(!Path::new("never-written").exists());
}

/// A store with small segments, open.
fn small_store(at: &Path) -> NativeStore {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    let config = NativeConfig::default()
        .with_batch_bytes(1 << 20)
        .with_storage(storage);
    NativeStore::open(at, config).unwrap()
}

#[test]
fn a_directory_without_a_store_stays_as_it_is() {
    let folder = tempdir().unwrap();
    let absent = folder.path().join("absent");
    all_refused(&absent, "not_a_store");
    assert!(!absent.exists());

    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    all_refused(&empty, "not_a_store");
    assert_eq!(std::fs::read_dir(&empty).unwrap().count(), 0);

    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    write(&foreign, "notes.txt", b"mine");
    all_refused(&foreign, "not_a_store");
    let model = write(folder.path(), "m.safetensors", &file(30));
    weights("add", &foreign, &[&model]).failed_with("not_a_store");
    assert_eq!(std::fs::read(foreign.join("notes.txt")).unwrap(), b"mine");

    let plain = write(folder.path(), "plain", b"a file");
    all_refused(&plain, "not_a_store");
    weights("add", &plain, &[&model]).failed_with("not_a_store");
}

#[test]
fn a_store_of_something_else_is_refused() {
    let folder = tempdir().unwrap();
    let blobs = tier_nvme::NvmeStore::new(folder.path(), StorageConfig::default()).unwrap();
    blobs.write_aligned("key", b"value").unwrap();
    blobs.close().unwrap();
    all_refused(folder.path(), "not_a_store");
}

#[test]
fn a_store_in_use_names_its_holder() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let model = write(folder.path(), "m.safetensors", &file(31));
    // This process is the other one.
    let holder = small_store(&store);
    all_refused(&store, "in_use");
    let message = weights("add", &store, &[&model]).failed_with("in_use");
    assert!(
        message.contains(&std::process::id().to_string()),
        "{message}"
    );
    holder.close().unwrap();
    weights("add", &store, &[&model]).done();
}

#[test]
fn a_store_of_a_newer_version_is_refused_unchanged() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    small_store(&store).close().unwrap();
    let path = store.join("STORE");
    let mut bytes = std::fs::read(&path).unwrap();
    for page in bytes.chunks_mut(4096) {
        page[8..12].copy_from_slice(&9_u32.to_le_bytes());
        let sum = checksum(CrcAlgorithm::Crc32Iscsi, &page[..4092]) as u32;
        page[4092..].copy_from_slice(&sum.to_le_bytes());
    }
    std::fs::write(&path, &bytes).unwrap();
    all_refused(&store, "newer_version");
    let model = write(folder.path(), "m.safetensors", &file(32));
    weights("add", &store, &[&model]).failed_with("newer_version");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_full_disk_is_told_and_earlier_models_stay() {
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=24m", "tmpfs"]) else {
        return;
    };
    let folder = tempdir().unwrap();
    let store = mount.path().join("store");
    small_store(&store).close().unwrap();
    let mut added = Vec::new();
    let message = loop {
        let seed = 100 + added.len() as u64;
        let model = write(folder.path(), &format!("m{seed}"), &file(seed));
        let answer = weights("add", &store, &[&model]);
        if answer.code != 0 {
            break answer.failed_with("no_space");
        }
        added.push(seed);
        assert!(added.len() < 40, "24 MiB hold no 40 models");
    };
    assert!(message.contains("intact"), "{message}");
    assert!(added.len() >= 4, "{added:?}");
    let output = folder.path().join("out");
    for seed in &added {
        let name = format!("m{seed}");
        weights("get", &store, &[&name, &"--force", &"-o", &output]).done();
        assert_eq!(std::fs::read(&output).unwrap(), file(*seed));
    }
    weights("verify", &store, &[]).done();
    let listed = weights("ls", &store, &[]).done().json();
    assert_eq!(listed["models"].as_array().unwrap().len(), added.len());

    // A target that fills up leaves nothing behind.
    let full = mount.path().join("full");
    let mut filler = std::fs::File::create(&full).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    drop(filler);
    let name = format!("m{}", added[0]);
    let target = mount.path().join("restored");
    weights("get", &store, &[&name, &"-o", &target]).failed_with("no_space");
    let names = std::fs::read_dir(mount.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["full", "store"]);
}

#[test]
fn a_read_only_store_can_be_read() {
    let folder = tempdir().unwrap();
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=24m", "tmpfs"]) else {
        return;
    };
    let store = mount.path().join("store");
    let model = write(folder.path(), "m.safetensors", &file(33));
    small_store(&store).close().unwrap();
    weights("add", &store, &[&model]).done();
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(mount.path())
        .output()
        .unwrap();
    assert!(remounted.status.success(), "{remounted:?}");
    let output = folder.path().join("out");
    weights("get", &store, &[&"m", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), file(33));
    weights("verify", &store, &[]).done();
    let other = write(folder.path(), "o.safetensors", &file(34));
    weights("add", &store, &[&other]).failed_with("read_only");
    weights("rm", &store, &[&"m"]).failed_with("read_only");
    let fresh = mount.path().join("fresh");
    weights("add", &fresh, &[&other]).failed_with("read_only");
}

#[test]
fn what_is_done_on_a_full_disk_is_done() {
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=24m", "tmpfs"]) else {
        return;
    };
    let folder = tempdir().unwrap();
    let store = mount.path().join("store");
    small_store(&store).close().unwrap();
    for seed in [1, 2] {
        let model = write(folder.path(), &format!("m{seed}"), &file(seed));
        weights("add", &store, &[&model]).done();
    }
    let mut filler = std::fs::File::create(mount.path().join("filler")).unwrap();
    while filler.write(&[0; 4096]).is_ok() {}
    weights("rm", &store, &[&"m1"]).done();
    weights("gc", &store, &[]).done();
    let models = weights("ls", &store, &[]).done().stdout;
    assert!(models.contains("m2") && !models.contains("m1"), "{models}");
    let output = folder.path().join("out");
    weights("get", &store, &[&"m2", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), file(2));
    weights("verify", &store, &[]).done();
}

#[test]
fn nothing_is_restored_over_a_file_of_a_store() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let model = write(folder.path(), "m.safetensors", &file(1));
    weights("add", &store, &[&model]).done();
    for name in ["CHECKPOINT-A", "copy"] {
        let output = store.join(name);
        weights("get", &store, &[&"m", &"--force", &"-o", &output]).failed_with("file");
    }
    let output = folder.path().join("copy");
    weights("get", &store, &[&"m", &"-o", &output]).done();
    weights("verify", &store, &[]).done();
}

#[test]
fn a_limit_of_file_sizes_is_an_error_as_others_are() {
    let folder = tempdir().unwrap();
    let model = write(folder.path(), "m.safetensors", &file(1));
    let script = "ulimit -f 64; exec \"$0\" --json weights add --store \"$1\" \"$2\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_stepwell")])
        .args([&folder.path().join("store"), &model])
        .output()
        .unwrap();
    answer_of(output).failed_with("no_space");
}

#[test]
fn a_truncated_segment_is_not_served() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let model = write(folder.path(), "m.safetensors", &file(35));
    small_store(&store).close().unwrap();
    weights("add", &store, &[&model]).done();
    let segment = std::fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("SEGMENT-"))
        .unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(segment)
        .unwrap();
    file.set_len(8192).unwrap();
    let output = folder.path().join("out");
    let answer = weights("get", &store, &[&"m", &"-o", &output]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(!output.exists());
    let verified = weights("verify", &store, &[]);
    assert_eq!(verified.code, 1, "{verified:?}");
}
