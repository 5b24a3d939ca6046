//! Values in, values out.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::model::{noise, write};
use crate::process::{Answer, answer_of, fields, stepwell, values};

/// The keys of a store with the lengths of their values.
fn listed(store: &Path) -> Vec<(Value, u64)> {
    let lines = values("ls", store, &[]).done().lines();
    lines
        .iter()
        .map(|line| (line["key"].clone(), line["len_bytes"].as_u64().unwrap()))
        .collect()
}

/// Runs `store COMMAND --store STORE ARGUMENTS`, with `input` on standard input, as people do.
fn with_input(command: &str, store: &Path, arguments: &[&str], input: &[u8]) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stepwell"))
        .args(["--json", "store", command, "--store"])
        .arg(store)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments reads nothing.
    drop(child.stdin.take().unwrap().write_all(input));
    answer_of(child.wait_with_output().unwrap())
}

#[test]
fn files_become_one_batch_and_come_back() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let large = noise(1, 300_001);
    let a = write(folder.path(), "a", &large);
    let empty = write(folder.path(), "empty", b"");
    let put = values("put", &store, &[&"k/a", &a, &"k/none", &empty]);
    let put = put.done().json();
    let names = [
        "batch",
        "changes_total",
        "elapsed_s",
        "last_key",
        "puts",
        "removals",
        "value_bytes",
    ];
    assert_eq!(fields(&put), names);
    assert_eq!(put["puts"], 2);
    assert_eq!(put["value_bytes"], large.len());
    assert_eq!(
        put["last_key"],
        json!({"key": "k/none", "key_hex": "6b2f6e6f6e65"})
    );
    assert_eq!(
        listed(&store),
        [(json!("k/a"), 300_001), (json!("k/none"), 0)]
    );

    let output = folder.path().join("out");
    let got = values("get", &store, &[&"k/a", &"-o", &output]);
    let got = got.done().json();
    let names = ["elapsed_s", "key", "key_hex", "len_bytes", "path"];
    assert_eq!(fields(&got), names);
    assert_eq!(std::fs::read(&output).unwrap(), large);
    values("get", &store, &[&"k/a", &"-o", &output]).failed_with("target_exists");
    values("get", &store, &[&"k/none", &"--force", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), b"");
    // Nothing but the outputs is left beside them.
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "empty", "out", "store"]);

    // Standard output gets the bytes and nothing else.
    let raw = Command::new(env!("CARGO_BIN_EXE_stepwell"))
        .args(["store", "get", "k/a", "--store"])
        .arg(&store)
        .output()
        .unwrap();
    assert_eq!((raw.status.code(), raw.stdout), (Some(0), large));
    let text = |command: &str| {
        let store = store.to_str().unwrap();
        stepwell(["store", command, "--store", store]).done().stdout
    };
    assert_eq!(text("ls"), "k/a\nk/none\n");
    assert!(text("stats").contains("300001") || text("stats").contains("293.0 KiB"));
    assert!(text("verify").contains("0 damaged"));
    let never = folder.path().join("never");
    values("get", &store, &[&"k/b", &"-o", &never]).failed_with("key_not_found");
    assert!(!never.exists());
}

#[test]
fn lines_are_changes_and_each_batch_is_acknowledged() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let file = write(folder.path(), "f", &noise(2, 5000));
    let mut lines = String::new();
    for n in 0..10 {
        lines += &json!({"key": format!("n{n}"), "value": n.to_string()}).to_string();
        lines += "\n";
    }
    lines += &json!({"key_hex": "00ff", "value_base64": "AAEC"}).to_string();
    lines += "\n\n";
    lines += &json!({"key": "f", "file": file}).to_string();
    lines += "\n";
    lines += &json!({"key": "n3", "delete": true}).to_string();
    let answer = with_input(
        "put",
        &store,
        &["--jsonl", "-", "--batch-keys", "4"],
        lines.as_bytes(),
    )
    .done();
    let totals: Vec<Value> = answer
        .lines()
        .iter()
        .map(|line| json!([line["batch"], line["changes_total"], line["removals"]]))
        .collect();
    let expected = [
        json!([1, 4, 0]),
        json!([2, 8, 0]),
        json!([3, 12, 0]),
        json!([4, 13, 1]),
    ];
    assert_eq!(totals, expected);
    let found = listed(&store);
    assert_eq!(found.len(), 11);
    assert_eq!(found[0], (Value::Null, 3), "00ff is no text");
}

#[test]
fn keys_may_be_any_bytes() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let value = write(folder.path(), "v", b"value");
    values("put", &store, &[&"--hex", &"ff00", &value]).done();
    let line = values("ls", &store, &[]).done().json();
    assert_eq!(line["key"], Value::Null);
    assert_eq!(line["key_hex"], "ff00");
    let output = folder.path().join("out");
    values("get", &store, &[&"--hex", &"FF00", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), b"value");
    values("ls", &store, &[&"--hex", &"ff"]).done().json();
    assert_eq!(
        values("ls", &store, &[&"--hex", &"fe"]).done().lines(),
        [Value::Null; 0]
    );
    let longest = "k".repeat(1024);
    values("put", &store, &[&longest, &value]).done();
    let longer = "k".repeat(1025);
    let message = values("put", &store, &[&longer, &value]).failed_with("invalid");
    assert!(message.contains("1025"), "{message}");
    values("put", &store, &[&"", &value]).failed_with("invalid");
    assert_eq!(listed(&store).len(), 2);
}

#[test]
fn a_directory_goes_in_and_its_keys_go_out_by_prefix() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let input = folder.path().join("in");
    std::fs::create_dir_all(input.join("deep/er")).unwrap();
    for (number, name) in (0_u64..).zip(["one", "two", "deep/three", "deep/er/four"]) {
        write(&input, name, &noise(number, 4096 * number as usize + 1));
    }
    let arguments: [&dyn AsRef<std::ffi::OsStr>; 6] = [
        &"--from",
        &input,
        &"--prefix",
        &"set/",
        &"--batch-bytes",
        &"8KiB",
    ];
    let put = values("put", &store, &arguments).done();
    assert!(put.lines().len() > 1, "{put:?}");
    assert_eq!(put.lines().pop().unwrap()["changes_total"], 4);
    let keys = ["set/deep/er/four", "set/deep/three", "set/one", "set/two"];
    let found = listed(&store);
    let found: Vec<&str> = found.iter().map(|(key, _)| key.as_str().unwrap()).collect();
    assert_eq!(found, keys);
    let output = folder.path().join("out");
    values("get", &store, &[&"set/deep/er/four", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), noise(3, 4096 * 3 + 1));

    let none = values("rm", &store, &[&"set/one", &"absent"]);
    assert!(none.failed_with("key_not_found").contains("absent"));
    assert_eq!(listed(&store).len(), 4);
    let some = values("rm", &store, &[&"--force", &"set/one", &"absent"]);
    assert_eq!(
        some.done().json(),
        json!({"removed_keys": 1, "missing_keys": 1})
    );
    let deep = values("rm", &store, &[&"--prefix", &"set/deep"]);
    assert_eq!(deep.done().json()["removed_keys"], 2);
    assert_eq!(listed(&store), [(json!("set/two"), 4097)]);
    values("verify", &store, &[]).done();
}

#[test]
fn compaction_gives_dead_space_back() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let input = folder.path().join("in");
    std::fs::create_dir(&input).unwrap();
    for number in 0..12 {
        write(&input, &format!("{number:02}"), &noise(number, 200_000));
    }
    let segments = ["--segment-bytes", "1MiB", "--batch-keys", "1"];
    let mut arguments: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&"--from", &input];
    arguments.extend(segments.iter().map(|text| text as &dyn AsRef<_>));
    values("put", &store, &arguments).done();
    let odd: Vec<String> = (0..12)
        .filter(|number| number % 4 != 0)
        .map(|n| format!("{n:02}"))
        .collect();
    let odd: Vec<&dyn AsRef<std::ffi::OsStr>> =
        odd.iter().map(|key| key as &dyn AsRef<_>).collect();
    values("rm", &store, &odd).done();
    let before = values("stats", &store, &[]).done().json();
    let compacted = values("compact", &store, &[]).done().json();
    assert_eq!(compacted["damage"], json!([]));
    let after = values("stats", &store, &[]).done().json();
    let reserved = |stats: &Value| stats["reserved_bytes"].as_u64().unwrap();
    assert!(reserved(&after) < reserved(&before), "{compacted}");
    assert_eq!(after["live_bytes"], 600_000);
    for number in [0, 4, 8] {
        let output = folder.path().join(format!("out{number}"));
        let key = format!("{number:02}");
        values("get", &store, &[&key, &"-o", &output]).done();
        assert_eq!(std::fs::read(&output).unwrap(), noise(number, 200_000));
    }
    values("verify", &store, &[]).done();
}

#[test]
fn standard_input_is_a_value() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let large = noise(5, 3 << 20);
    with_input("put", &store, &["piped", "-"], &large).done();
    let output = folder.path().join("out");
    values("get", &store, &[&"piped", &"-o", &output]).done();
    assert_eq!(std::fs::read(&output).unwrap(), large);
}

#[test]
fn wrong_usage_of_values_is_told_from_failure() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let store = store.to_str().unwrap();
    for arguments in [
        &["put", "--store", store][..],
        &["put", "--store", store, "key"],
        &["put", "--store", store, "a", "f", "b"],
        &["put", "--store", store, "a", "-", "b", "-"],
        &["put", "--store", store, "--hex", "0", "f"],
        &["put", "--store", store, "--jsonl", "f", "--from", "d"],
        &["put", "--store", store, "--batch-bytes", "1.5", "a", "f"],
        &["put", "--store", store, "--batch-keys", "0", "a", "f"],
        &["get", "--store", store],
        &["get", "a"],
        &["rm", "--store", store],
        &["verify", "--store", store, "--rate", "0"],
        &["verify", "--store", store, "--rate", "1M", "--structures"],
        &["rm", "--store", store, "--prefix", "a", "b"],
    ] {
        let all = ["--json", "store"].iter().chain(arguments);
        let answer = stepwell(all);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert_eq!(answer.json()["error"]["kind"], "usage", "{answer:?}");
    }
    // A value and JSON can't share standard output.
    let both = stepwell(["--json", "store", "get", "--store", store, "a"]);
    assert_eq!(both.code, 2, "{both:?}");
    assert!(!Path::new(store).exists());
}
