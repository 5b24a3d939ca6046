//! Stores of values that are damaged, foreign, full, read-only or in use.

use std::path::Path;
use std::process::Command;

use tempfile::tempdir;
use tier_nvme::{NvmeStore, StorageConfig};

use crate::model::{file, noise, write};
use crate::mount::Mount;
use crate::process::{fields, stepwell, values, weights};

const READING: [(&str, &[&str]); 5] = [
    ("ls", &[]),
    ("stats", &[]),
    ("verify", &[]),
    ("get", &["k", "-o", "never-written-value"]),
    ("rm", &["k"]),
];

fn all_refused(store: &Path, kind: &str) {
    for (command, arguments) in READING {
        let mut all = vec!["--json", "store", command];
        all.extend(["--store", store.to_str().unwrap()]);
        all.extend(arguments);
        stepwell(all).failed_with(kind);
    }
    assert!(!Path::new("never-written-value").exists());
}

/// Makes a store with segments of this size.
fn made_with(store: &Path, segment_bytes: u64) {
    let config = StorageConfig::default().with_segment_bytes(segment_bytes);
    NvmeStore::new(store, config).unwrap().close().unwrap();
}

#[test]
fn what_is_no_store_of_values_stays_as_it_is() {
    let folder = tempdir().unwrap();
    let value = write(folder.path(), "v", b"value");
    let absent = folder.path().join("absent");
    all_refused(&absent, "not_a_store");
    assert!(!absent.exists());
    // Nothing is made for input that can't be used.
    let missing = folder.path().join("missing");
    values("put", &absent, &[&"k", &missing]).failed_with("file_not_found");
    values("put", &absent, &[&"k", &value, &"l", &missing]).failed_with("file_not_found");
    values("put", &absent, &[&"--from", &missing]).failed_with("file_not_found");
    values("put", &absent, &[&"--jsonl", &missing]).failed_with("file_not_found");
    values("put", &absent, &[&"--segment-bytes", &"5", &"k", &value]).failed_with("invalid");
    assert!(!absent.join("STORE").exists());

    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    write(&foreign, "notes.txt", b"mine");
    all_refused(&foreign, "not_a_store");
    values("put", &foreign, &[&"k", &value]).failed_with("not_a_store");
    all_refused(&value, "not_a_store");
    values("put", &value, &[&"k", &value]).failed_with("not_a_store");
    assert_eq!(std::fs::read(&value).unwrap(), b"value");
}

#[test]
fn a_store_of_models_is_read_and_not_changed() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let model = write(folder.path(), "m.safetensors", &file(70));
    weights("add", &store, &[&model]).done();
    let keys = values("ls", &store, &[]).done().lines().len();
    assert!(keys > 1);
    values("verify", &store, &[]).done();
    let message = values("put", &store, &[&"k", &model]).failed_with("holds_models");
    assert!(message.contains("stepwell weights"), "{message}");
    values("rm", &store, &[&"s/format"]).failed_with("holds_models");
    assert_eq!(values("ls", &store, &[]).done().lines().len(), keys);
    weights("verify", &store, &[]).done();
}

#[test]
fn a_store_of_values_in_use_names_its_holder() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let value = write(folder.path(), "v", b"value");
    values("put", &store, &[&"k", &value]).done();
    // This process is the other one.
    let holder = NvmeStore::new(&store, StorageConfig::default()).unwrap();
    all_refused(&store, "in_use");
    let message = values("put", &store, &[&"l", &value]).failed_with("in_use");
    let pid = std::process::id().to_string();
    assert!(message.contains(&pid), "{message}");
    holder.close().unwrap();
    values("put", &store, &[&"l", &value]).done();
}

#[test]
fn a_value_that_fits_no_segment_is_refused() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let small = write(folder.path(), "small", &noise(1, 30_000));
    let large = write(folder.path(), "large", &noise(2, 70_000));
    let made = ["--segment-bytes", "64KiB"];
    values("put", &store, &[&made[0], &made[1], &"small", &small]).done();
    let message = values("put", &store, &[&"large", &large]).failed_with("too_large");
    assert!(message.contains("--segment-bytes"), "{message}");
    // Together they are too much for one batch, and then nothing is stored.
    let both: [&dyn AsRef<std::ffi::OsStr>; 6] = [&"a", &small, &"b", &small, &"c", &small];
    values("put", &store, &both).failed_with("too_large");
    let folder_of_both = folder.path().join("in");
    std::fs::create_dir(&folder_of_both).unwrap();
    for name in ["a", "b", "c"] {
        write(&folder_of_both, name, &noise(3, 30_000));
    }
    let split = values("put", &store, &[&"--from", &folder_of_both]).done();
    // Each takes eight pages of the sixteen, two of which are taken.
    assert_eq!(split.lines().len(), 3, "{split:?}");
    assert_eq!(values("ls", &store, &[]).done().lines().len(), 4);
    let stats = values("stats", &store, &[]).done().json();
    assert_eq!(stats["segment_bytes"], 65536);
}

#[test]
fn a_bad_line_ends_the_input_and_keeps_what_was_stored() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let lines = "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\",\"value\":\"2\"}\n{\"key\":3}\n";
    let path = write(folder.path(), "lines", lines.as_bytes());
    let answer = values("put", &store, &[&"--jsonl", &path, &"--batch-keys", &"1"]);
    let message = answer.failed_with("bad_line");
    assert!(message.contains("line 3 of"), "{message}");
    let acknowledged = answer.lines().len() - 1;
    assert_eq!(
        values("ls", &store, &[]).done().lines().len(),
        acknowledged,
        "what is there is what was acknowledged"
    );
}

#[test]
fn a_flipped_bit_is_found_and_never_given_out() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    made_with(&store, 1 << 20);
    let bytes = noise(9, 100_000);
    let value = write(folder.path(), "v", &bytes);
    values("put", &store, &[&"good", &value]).done();
    values("put", &store, &[&"bad", &value]).done();
    let segment = std::fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().contains("SEGMENT-"))
        .unwrap();
    let mut stored = std::fs::read(&segment).unwrap();
    let places = stored.windows(64).enumerate();
    let places: Vec<usize> = places
        .filter(|(_, window)| *window == &bytes[5000..5064])
        .map(|(place, _)| place)
        .collect();
    assert_eq!(places.len(), 2);
    stored[places[1]] ^= 4;
    std::fs::write(&segment, &stored).unwrap();

    let found = values("verify", &store, &[]);
    assert_eq!(found.code, 1, "{found:?}");
    let found = found.json();
    let names = ["damage", "structures", "value_bytes", "values"];
    assert_eq!(fields(&found), names);
    let damage = found["damage"].as_array().unwrap();
    assert_eq!(damage.len(), 1, "{damage:?}");
    let names = ["key", "key_hex", "location", "reason", "structure"];
    assert_eq!(fields(&damage[0]), names);
    assert_eq!(damage[0]["key"], "bad");
    let structures = values("verify", &store, &[&"--structures"]).done().json();
    assert_eq!(structures["values"], 0);
    let slow = values("verify", &store, &[&"--rate", &"1MiB"]);
    assert_eq!((slow.code, slow.json()), (1, found.clone()));
    let output = folder.path().join("out");
    values("get", &store, &[&"bad", &"-o", &output]).failed_with("corrupt");
    assert!(!output.exists());
    let raw = stepwell(["store", "get", "bad", "--store", store.to_str().unwrap()]);
    assert_eq!((raw.code, raw.stdout.as_str()), (1, ""));
    values("get", &store, &[&"good", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), bytes);
}

#[test]
fn a_full_disk_keeps_what_was_acknowledged() {
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=24m", "tmpfs"]) else {
        return;
    };
    let folder = tempdir().unwrap();
    let input = folder.path().join("in");
    std::fs::create_dir(&input).unwrap();
    for n in 0..40 {
        write(&input, &format!("{n:02}"), &noise(n, 1 << 20));
    }
    let store = mount.path().join("store");
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 6] = [
        &"--from",
        &input,
        &"--batch-bytes",
        &"1MiB",
        &"--segment-bytes",
        &"4MiB",
    ];
    let answer = values("put", &store, &arguments);
    answer.failed_with("no_space");
    let acknowledged = answer.lines().len() - 1;
    assert!(acknowledged >= 8, "{acknowledged}");
    let listed = values("ls", &store, &[]).done().lines();
    assert_eq!(listed.len(), acknowledged);
    values("verify", &store, &[]).done();
    let output = folder.path().join("out");
    values("get", &store, &[&"03", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), noise(3, 1 << 20));
}

#[test]
fn a_small_file_system_gets_small_segments() {
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=64m", "tmpfs"]) else {
        return;
    };
    let folder = tempdir().unwrap();
    let store = mount.path().join("values");
    let value = write(folder.path(), "v", b"value");
    values("put", &store, &[&"k", &value]).done();
    let stats = values("stats", &store, &[]).done().json();
    assert!(
        stats["segment_bytes"].as_u64().unwrap() <= 16 << 20,
        "{stats}"
    );
    let models = mount.path().join("models");
    let model = write(folder.path(), "m.safetensors", &file(71));
    weights("add", &models, &[&model]).done();
    weights("verify", &models, &[]).done();
}

#[test]
fn a_read_only_store_of_values_can_be_read() {
    let folder = tempdir().unwrap();
    let Some(mount) = Mount::new(&["-t", "tmpfs", "-o", "size=24m", "tmpfs"]) else {
        return;
    };
    let store = mount.path().join("store");
    let value = write(folder.path(), "v", b"value");
    made_with(&store, 4 << 20);
    values("put", &store, &[&"k", &value]).done();
    let remounted = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(mount.path())
        .status()
        .unwrap();
    assert!(remounted.success());
    let output = folder.path().join("out");
    values("get", &store, &[&"k", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), b"value");
    values("verify", &store, &[]).done();
    assert_eq!(
        values("stats", &store, &[]).done().json()["mode"],
        "buffered"
    );
    values("put", &store, &[&"l", &value]).failed_with("read_only");
    values("rm", &store, &[&"k"]).failed_with("read_only");
    let beside = mount.path().join("out");
    values("get", &store, &[&"k", &"-o", &beside]).failed_with("file");
}

/// A store of one value, whose only segment is the first.
fn one_value(store: &Path, folder: &Path) {
    made_with(store, 1 << 20);
    let value = write(folder, "v", &noise(4, 50_000));
    values("put", store, &[&"k", &value]).done();
}

#[test]
fn a_missing_segment_is_named_and_costs_only_what_was_in_it() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    one_value(&store, folder.path());
    std::fs::remove_file(store.join("SEGMENT-0000000000000001")).unwrap();
    let output = folder.path().join("out");
    let message = values("get", &store, &[&"k", &"-o", &output]).failed_with("corrupt");
    assert!(message.contains("SEGMENT-0000000000000001"), "{message}");
    assert!(!output.exists());
    assert_eq!(values("verify", &store, &[]).code, 1);
    let value = write(folder.path(), "w", b"value");
    values("put", &store, &[&"l", &value]).done();
    values("get", &store, &[&"l", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), b"value");
}

#[test]
fn damaged_headers_are_found_and_right_values_are_served() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    one_value(&store, folder.path());
    let segment = store.join("SEGMENT-0000000000000001");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&segment, &bytes).unwrap();
    let output = folder.path().join("out");
    values("get", &store, &[&"k", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), noise(4, 50_000));
    let found = values("verify", &store, &[]);
    assert_eq!(found.code, 1, "{found:?}");
    assert_eq!(found.json()["damage"][0]["structure"], "segment header");

    // One copy of the superblock is enough; without both nothing is touched.
    let superblock = store.join("STORE");
    for copy in [0, 1] {
        let mut bytes = std::fs::read(&superblock).unwrap();
        bytes[copy * 4096 + 20] ^= 1;
        std::fs::write(&superblock, &bytes).unwrap();
        let listed = values("ls", &store, &[]);
        if copy == 0 {
            assert_eq!(listed.done().lines().len(), 1);
            continue;
        }
        listed.failed_with("corrupt");
        values("get", &store, &[&"k", &"-o", &output]).failed_with("corrupt");
        let value = write(folder.path(), "w", b"value");
        values("put", &store, &[&"l", &value]).failed_with("corrupt");
        assert_eq!(values("verify", &store, &[]).code, 1);
        assert_eq!(std::fs::read(&superblock).unwrap(), bytes);
    }
}
