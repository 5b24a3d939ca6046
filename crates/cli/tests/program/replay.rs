//! `kv replay`.

use std::io::Write;
use std::process::{Command, Stdio};

use tempfile::tempdir;

use crate::model::write;
use crate::process::{Answer, fields, stepwell};

/// Turns of conversations that come back after others.
fn trace() -> String {
    let line = |number: u64| {
        let first = number % 8 * 100;
        let ids: Vec<u64> = (first..=first + 2 + number / 8).collect();
        format!(
            r#"{{"timestamp": {number}, "input_length": 9, "output_length": 1, "hash_ids": {ids:?}}}"#
        )
    };
    (0..24).map(line).collect::<Vec<_>>().join("\n")
}

fn replay(trace: &str, more: &[&str]) -> Answer {
    let common = [
        "--json", "kv", "replay", "--trace", trace, "--g1", "8", "--g2", "8",
    ];
    stepwell(common.iter().chain(more))
}

#[test]
fn replay_verifies_blocks_that_come_back_and_a_disk_tier_outlives_it() {
    let folder = tempdir().unwrap();
    let trace = write(folder.path(), "trace.jsonl", trace().as_bytes());
    let (trace, dir) = (trace.to_str().unwrap(), folder.path().join("tier"));
    let page = folder.path().join("page.html");
    let (dir, page) = (dir.to_str().unwrap(), page.to_str().unwrap());
    let disk = ["--g3", "64", "--block-bytes", "4096", "--dir", dir];
    let first = replay(trace, &[&disk[..], &["--report", page]].concat());
    let first = first.done().json();
    let names = [
        "blocks",
        "dropped",
        "elapsed_s",
        "hit_rate",
        "mismatched_blocks",
        "requests",
        "tiers",
        "verified_blocks",
    ];
    assert_eq!(fields(&first), names);
    assert_eq!(
        (first["requests"].as_u64(), first["blocks"].as_u64()),
        (Some(24), Some(96))
    );
    // Of each conversation, 3 and 4 blocks come back.
    assert_eq!(first["hit_rate"].as_f64(), Some(56.0 / 96.0));
    assert_eq!(first["verified_blocks"].as_u64(), Some(56));
    assert_eq!(first["mismatched_blocks"].as_u64(), Some(0));
    let tiers = first["tiers"].as_array().unwrap();
    let tier_names = [
        "blocks_in",
        "blocks_out",
        "bytes_in",
        "bytes_out",
        "hits",
        "tier",
    ];
    assert!(tiers.iter().all(|tier| fields(tier) == tier_names));
    assert_eq!(tiers[2]["blocks_in"].as_u64(), Some(40));
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .matches("<svg")
            .count()
            >= 2
    );

    // Everything is on disk now.
    let counted = folder.path().join("counted.prom");
    let counted = ["--metrics", counted.to_str().unwrap()];
    replay(trace, &[&disk[..], &counted].concat()).done();
    let text = std::fs::read_to_string(counted[1]).unwrap();
    for line in [
        "stepwell_kv_moved_blocks_total{tier=\"G1\",direction=\"out\"} ",
        "stepwell_kv_tier_hits_total{tier=\"G3\"} ",
        "stepwell_kv_onboard_seconds_count{tier=\"G3\"} ",
        "stepwell_kv_restart_seconds_count{tier=\"G3\"} 1",
        "stepwell_kv_blocks{tier=\"G3\",state=\"cached\"} 40",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    replay(trace, &[&disk[..], &counted].concat()).failed_with("target_exists");
    let again = replay(trace, &disk).done().json();
    assert_eq!(again["hit_rate"].as_f64(), Some(1.0));
    let other = replay(trace, &[&disk[..], &["--model", "other"]].concat());
    assert_eq!(other.done().json()["hit_rate"].as_f64(), Some(56.0 / 96.0));
    let resized = ["--g3", "64", "--block-bytes", "8192", "--dir", dir];
    replay(trace, &resized).failed_with("invalid");
    let smaller = ["--g3", "64", "--block-bytes", "2048", "--dir", dir];
    let refused = replay(trace, &smaller);
    assert_eq!(refused.code, 1, "{refused:?}");
}

/// Requests of 8 blocks each, none of which comes again; nor do those of another number.
fn new_blocks(number: u64) -> String {
    let line = |request: u64| {
        let first = number * 10_000 + request * 8;
        let ids: Vec<u64> = (first..first + 8).collect();
        format!(
            r#"{{"timestamp": {request}, "input_length": 9, "output_length": 1, "hash_ids": {ids:?}}}"#
        )
    };
    (0..300).map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_disk_tier_that_is_opened_again_has_as_many_blocks_as_it_is_to_have_then() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("tier");
    let dir = dir.to_str().unwrap();
    // The segments of the first are of an odd size for the others.
    for (number, blocks) in ["100", "1270", "50", "2300"].into_iter().enumerate() {
        let trace = new_blocks(number as u64);
        let trace = write(folder.path(), "trace.jsonl", trace.as_bytes());
        let disk = ["--g3", blocks, "--block-bytes", "4096", "--dir", dir];
        let played = replay(trace.to_str().unwrap(), &disk).done().json();
        assert_eq!(played["dropped"].get("target_full"), None, "{played}");
        assert_eq!(played.get("shortfall"), None, "{played}");
        assert_eq!(played["tiers"][2]["blocks_in"].as_u64(), Some(2400));
    }
}

#[test]
fn a_disk_tier_recovers_from_the_loss_of_its_only_segment() {
    let folder = tempdir().unwrap();
    let trace = write(folder.path(), "trace.jsonl", trace().as_bytes());
    let (trace, dir) = (trace.to_str().unwrap(), folder.path().join("tier"));
    let disk = ["--g3", "64", "--block-bytes", "4096", "--dir"];
    let run = || replay(trace, &[&disk[..], &[dir.to_str().unwrap()]].concat());
    let whole = run().done().json();
    std::fs::remove_file(dir.join("BLOCKS-00000000")).unwrap();
    let damaged = run();
    assert_eq!(damaged.code, 1, "{}", damaged.stdout);
    // The blocks that were missed went, and were stored anew.
    let again = run().done().json();
    assert_eq!(again["mismatched_blocks"].as_u64(), Some(0), "{again}");
    assert!(again["hit_rate"].as_f64() > whole["hit_rate"].as_f64());
}

#[test]
fn a_report_of_a_trace_that_comes_through_a_pipe_has_its_curves() {
    let folder = tempdir().unwrap();
    let file = write(folder.path(), "trace.jsonl", trace().as_bytes());
    let pages = ["file.html", "pipe.html"].map(|name| folder.path().join(name));
    let sizes = ["--g1", "8", "--g2", "8", "--block-bytes", "64"];
    for (page, source) in pages.iter().zip([file.to_str().unwrap(), "/dev/stdin"]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stepwell"));
        command.args(["--json", "kv", "replay", "--trace", source, "--report"]);
        let child = command.arg(page).args(sizes).stdin(Stdio::piped());
        let mut child = child.stdout(Stdio::null()).spawn().unwrap();
        let written = child.stdin.take().unwrap().write_all(trace().as_bytes());
        // Who has a file leaves the pipe alone, and may be gone.
        assert!(written.is_ok() || source != "/dev/stdin");
        assert!(child.wait().unwrap().success());
    }
    let curves = pages.map(|page| {
        let page = std::fs::read_to_string(page).unwrap();
        let at = page.find("Hit rate by capacity").unwrap();
        page[at..].to_owned()
    });
    assert!(curves[0].contains("optimum"));
    assert!(curves[0] == curves[1], "a page has other curves");
}

#[test]
fn replay_names_what_it_cannot_use() {
    let folder = tempdir().unwrap();
    let good = write(folder.path(), "good.jsonl", trace().as_bytes());
    let bad = write(
        folder.path(),
        "bad.jsonl",
        format!("{}\nnonsense\n", trace()).as_bytes(),
    );
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    let message = replay(bad, &["--block-bytes", "4096"]).failed_with("bad_line");
    assert!(message.contains("bad.jsonl:25: "), "{message}");
    replay("no/such/trace", &["--block-bytes", "4096"]).failed_with("file_not_found");
    for (arguments, named) in [
        (&["--block-bytes", "0"][..], "--block-bytes"),
        (
            &["--block-bytes", "4096", "--g4", "s3://bucket"],
            "--g4 is not there yet",
        ),
        (&["--block-bytes", "4096", "--dir", "."], "--g3"),
        (&["--block-bytes", "4096", "--policy", "newest"], "newest"),
    ] {
        let answer = replay(good, arguments);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains(named), "{answer:?}");
    }
}

#[test]
fn soak_plays_under_a_new_salt_each_round_and_says_how_memory_stands() {
    let folder = tempdir().unwrap();
    let trace = write(folder.path(), "trace.jsonl", trace().as_bytes());
    let soak = |trace: &str, more: &[&str]| {
        let tiers = ["--g1", "8", "--g2", "8", "--g3", "64", "--dir"];
        let common = ["--json", "kv", "soak", "--trace", trace];
        let dir = folder.path().to_str().unwrap();
        stepwell(common.iter().chain(&tiers).chain(&[dir]).chain(more))
    };
    let trace = trace.to_str().unwrap();
    let answer = soak(trace, &["--minutes", "0.02"]).done().json();
    let rounds = answer["rounds"].as_array().unwrap();
    assert!(!rounds.is_empty());
    // Of 96 blocks a round, 56 come back, none of an earlier round.
    for round in rounds {
        assert_eq!(round["hit_rate"].as_f64(), Some(56.0 / 96.0), "{round}");
        // Some of them may be in the engine's memory still.
        let verified = round["verified_blocks"].as_u64().unwrap();
        assert!((1..=56).contains(&verified), "{round}");
        assert!(round["resident_kib"].as_u64() > Some(100), "{round}");
    }
    assert_eq!(answer["blocks"].as_u64(), Some(96 * rounds.len() as u64));
    assert_eq!(answer["mismatched_blocks"].as_u64(), Some(0));
    assert!(answer["memory"].is_null() == (rounds.len() < 4), "{answer}");
    let left = std::fs::read_dir(folder.path()).unwrap();
    assert_eq!(left.count(), 1, "the tier's directory is still there");

    let empty = write(folder.path(), "empty.jsonl", b"\n");
    for (trace, arguments, named) in [
        (trace, &["--minutes", "0"][..], "--minutes"),
        (trace, &["--minutes", "nan"], "--minutes"),
        (trace, &["--block-bytes", "0"], "--block-bytes"),
        (empty.to_str().unwrap(), &[], "no request"),
    ] {
        let answer = soak(trace, arguments);
        assert_eq!(answer.code, 2, "{answer:?}");
        assert!(answer.stderr.contains(named), "{answer:?}");
    }
}
