//! What `kv replay` can't use: sizes, traces, and disk tiers that others wrote.

use std::path::Path;

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockMeta, BlockPut, BlockStore};
use crc_fast::CrcAlgorithm;
use tempfile::tempdir;
use tier_nvme::{BlockSlab, SlabConfig};

use crate::model::write;
use crate::process::{Answer, stepwell};

const BLOCK_BYTES: usize = 4096;

/// Where the header's checksum is, which covers what is before it.
const CHECKSUM: usize = 92;

fn line(number: u64) -> String {
    let first = number % 4 * 100;
    let ids: Vec<u64> = (first..first + 4).collect();
    format!(
        r#"{{"timestamp": {number}, "input_length": 9, "output_length": 1, "hash_ids": {ids:?}}}"#
    )
}

fn trace(folder: &Path) -> String {
    let lines: Vec<String> = (0..4).map(line).collect();
    let path = write(folder, "trace.jsonl", lines.join("\n").as_bytes());
    path.to_str().unwrap().to_owned()
}

fn replay(trace: &str, more: &[&str]) -> Answer {
    let common = ["--json", "kv", "replay", "--trace", trace];
    stepwell(common.iter().chain(more))
}

fn on_disk(trace: &str, dir: &Path) -> Answer {
    let dir = dir.to_str().unwrap();
    let tiers = ["--g1", "8", "--g3", "64", "--block-bytes", "4096", "--dir"];
    replay(trace, &[&tiers[..], &[dir]].concat())
}

/// Changes the header of each block of a tier, and leaves the payloads.
fn change_headers(dir: &Path, change: impl Fn(&mut [u8])) {
    let config = SlabConfig::default()
        .with_block_bytes(BLOCK_BYTES as u64)
        .with_create(false);
    let slab = BlockSlab::open(dir, config).unwrap();
    for entry in slab.list(None, 1000).unwrap() {
        let key = entry.key;
        let target = BufferMut::zeroed(BLOCK_BYTES, 4096).unwrap();
        let got = slab.get(vec![BlockGet { key, target }]).wait().unwrap();
        let block = got.into_iter().next().unwrap().unwrap();
        let mut header = block.meta.as_slice().to_vec();
        change(&mut header);
        let put = BlockPut {
            key,
            meta: BlockMeta::new(&header).unwrap(),
            payload: block.target,
        };
        let stored = slab.put(vec![put]).wait().unwrap();
        stored.into_iter().next().unwrap().unwrap();
    }
    slab.close().unwrap();
}

/// Adds to the byte at an offset, and makes the checksum fit.
fn patch(at: usize) -> impl Fn(&mut [u8]) {
    move |header: &mut [u8]| {
        header[at] = header[at].wrapping_add(1);
        let checksum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &header[..CHECKSUM]);
        header[CHECKSUM..].copy_from_slice(&(checksum as u32).to_le_bytes());
    }
}

#[test]
fn a_tier_of_another_layout_or_version_is_refused_by_field() {
    let folder = tempdir().unwrap();
    let trace = trace(folder.path());
    for (at, kind, named) in [
        (28, "layout_mismatch", "page_size"),
        (56, "layout_mismatch", "num_layers"),
        (60, "layout_mismatch", "outer_dim"),
        (64, "layout_mismatch", "heads"),
        (68, "layout_mismatch", "head_dim"),
        (72, "layout_mismatch", "dtype_bytes"),
        (76, "layout_mismatch", "groups"),
        (78, "layout_mismatch", "order"),
        (84, "layout_mismatch", "group"),
        (4, "newer_version", "version 2"),
        (6, "newer_version", "features 0x1"),
    ] {
        let dir = folder.path().join(format!("tier-{at}"));
        on_disk(&trace, &dir).done();
        change_headers(&dir, patch(at));
        let message = on_disk(&trace, &dir).failed_with(kind);
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn blocks_of_another_salt_or_with_damaged_headers_do_not_match() {
    let folder = tempdir().unwrap();
    let trace = trace(folder.path());
    let hit_rate = |answer: Answer| answer.done().json()["hit_rate"].as_f64().unwrap();
    let salt = folder.path().join("salt");
    assert_eq!(hit_rate(on_disk(&trace, &salt)), 0.0);
    assert_eq!(hit_rate(on_disk(&trace, &salt)), 1.0);
    change_headers(&salt, patch(48));
    assert_eq!(hit_rate(on_disk(&trace, &salt)), 0.0);
    let damaged = folder.path().join("damaged");
    on_disk(&trace, &damaged).done();
    change_headers(&damaged, |header| header[30] ^= 1);
    assert_eq!(hit_rate(on_disk(&trace, &damaged)), 0.0);
    // They were stored again.
    assert_eq!(hit_rate(on_disk(&trace, &damaged)), 1.0);
}

#[test]
fn a_block_whose_bytes_are_not_those_of_its_header_is_counted_and_fails_the_replay() {
    let folder = tempdir().unwrap();
    let (trace, dir) = (trace(folder.path()), folder.path().join("tier"));
    on_disk(&trace, &dir).done();
    change_headers(&dir, patch(40));
    let answer = on_disk(&trace, &dir);
    assert_eq!(answer.code, 1, "{answer:?}");
    let outcome = answer.json();
    assert_eq!(outcome["hit_rate"].as_f64(), Some(0.0), "{outcome}");
    assert!(outcome["mismatched_blocks"].as_u64() > Some(0), "{outcome}");
    assert!(
        outcome["dropped"]["mismatch"].as_u64() > Some(0),
        "{outcome}"
    );
    assert_eq!(on_disk(&trace, &dir).done().json()["hit_rate"], 1.0);
}

#[test]
fn lines_that_are_no_requests_are_named_by_file_and_number() {
    let folder = tempdir().unwrap();
    let good = line(0);
    let cases: [(&str, &[u8]); 6] = [
        ("text", b"nonsense"),
        ("array", b"[1, 2]"),
        ("missing", br#"{"timestamp": 1}"#),
        (
            "negative",
            br#"{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [-1]}"#,
        ),
        ("cut", br#"{"timestamp": 1, "input_len"#),
        ("bytes", b"{\"timestamp\": \xff}"),
    ];
    for (name, bad) in cases {
        let lines = [good.as_bytes(), b"\n\n", bad, b"\n", good.as_bytes()].concat();
        let path = write(folder.path(), name, &lines);
        let path = path.to_str().unwrap();
        let answer = replay(path, &["--g1", "8", "--block-bytes", "4096"]);
        let message = answer.failed_with("bad_line");
        assert!(message.contains(&format!("{name}:3: ")), "{message}");
    }
    let directory = folder.path().to_str().unwrap();
    let answer = replay(directory, &["--g1", "8", "--block-bytes", "4096"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let empty = write(folder.path(), "empty", b"");
    let answer = replay(
        empty.to_str().unwrap(),
        &["--g1", "8", "--block-bytes", "4096"],
    );
    assert_eq!(answer.done().json()["requests"].as_u64(), Some(0));
}

#[test]
fn sizes_that_cannot_be_are_named() {
    let folder = tempdir().unwrap();
    let trace = trace(folder.path());
    let huge = usize::MAX.to_string();
    for (arguments, named) in [
        (&["--g1", "0", "--block-bytes", "4096"][..], "--g1"),
        (&["--g1", "8", "--block-bytes", "0"], "--block-bytes"),
        (&["--g1", "8", "--block-bytes", "-1"], "--block-bytes"),
        (&["--g1", "x", "--block-bytes", "4096"], "--g1"),
        (&["--block-bytes", "4096"], "--g1"),
        (&["--g1", "8"], "--block-bytes"),
    ] {
        let answer = replay(&trace, arguments);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains(named), "{answer:?}");
    }
    let simulated = ["kv", "simulate", "--capacities", "5,0", "--trace", &trace];
    assert_eq!(stepwell(simulated).code, 2);
    let answer = replay(&trace, &["--g1", &huge, "--block-bytes", "4096"]);
    answer.failed_with("out_of_memory");
    for large in [
        ["--g1", "2000000000", "--block-bytes", "1TiB"],
        ["--g1", "2000000000", "--block-bytes", "1"],
        ["--g1", "1000000", "--block-bytes", "1TiB"],
    ] {
        replay(&trace, &large).failed_with("out_of_memory");
    }
    let odd = ["--g1", "8", "--g3", "8", "--block-bytes", "1000"];
    let message = replay(&trace, &odd).failed_with("invalid");
    assert!(message.contains("block_bytes"), "{message}");
}

#[test]
fn directories_that_are_no_tiers_are_named() {
    let folder = tempdir().unwrap();
    let trace = trace(folder.path());
    let file = write(folder.path(), "file", b"1");
    let answer = on_disk(&trace, &file);
    assert_eq!(answer.code, 1, "{answer:?}");
    let values = folder.path().join("values");
    let values_text = values.to_str().unwrap();
    let put = [
        "store",
        "put",
        "--store",
        values_text,
        "k",
        file.to_str().unwrap(),
    ];
    assert_eq!(stepwell(put).code, 0);
    on_disk(&trace, &values).failed_with("not_a_store");

    let dir = folder.path().join("tier");
    on_disk(&trace, &dir).done();
    let config = SlabConfig::default().with_block_bytes(BLOCK_BYTES as u64);
    let held = BlockSlab::open(&dir, config).unwrap();
    on_disk(&trace, &dir).failed_with("in_use");
    held.close().unwrap();
    on_disk(&trace, &dir).done();
}
