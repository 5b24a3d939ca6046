//! `kv simulate`.

use std::path::Path;

use tempfile::tempdir;

use crate::model::write;
use crate::process::{Answer, fields, stepwell};

/// Turns of a conversation between requests that come once.
fn trace() -> String {
    let line = |number: u64, ids: &[u64]| {
        format!(
            r#"{{"timestamp": {number}, "input_length": 9, "output_length": 1, "hash_ids": {ids:?}}}"#
        )
    };
    let lines = (0..200_u64).map(|number| match number % 2 {
        0 => line(number, &[0, 1, 2]),
        _ => line(number, &[0, 1000 + 2 * number, 1001 + 2 * number]),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Runs `stepwell --json kv simulate --trace TRACE ARGUMENTS`.
fn simulate(trace: &Path, arguments: &[&str]) -> Answer {
    let first = [
        "--json",
        "kv",
        "simulate",
        "--trace",
        trace.to_str().unwrap(),
    ];
    stepwell(first.iter().chain(arguments))
}

#[test]
fn simulate_puts_every_policy_beside_the_optimum_and_draws_them() {
    let folder = tempdir().unwrap();
    let trace = write(folder.path(), "trace.jsonl", trace().as_bytes());
    let page = folder.path().join("page.html");
    let arguments = [
        "--policies",
        "all",
        "--capacities",
        "9,4,9",
        "--report",
        page.to_str().unwrap(),
    ];
    let answer = simulate(&trace, &arguments).done().json();
    let names = [
        "blocks",
        "ceiling_hit_rate",
        "distinct_blocks",
        "requests",
        "rows",
        "trace",
    ];
    assert_eq!(fields(&answer), names);
    assert_eq!(
        (answer["requests"].as_u64(), answer["blocks"].as_u64()),
        (Some(200), Some(600))
    );
    let rows = answer["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2 * 8);
    for row in rows {
        let names = [
            "capacity_blocks",
            "default",
            "hit_rate",
            "optimum_hit_rate",
            "policy",
        ];
        assert_eq!(fields(row), names);
        assert_eq!(row["default"], row["policy"] == "adaptive");
        let rate = |name: &str| row[name].as_f64().unwrap();
        assert!(rate("hit_rate") <= rate("optimum_hit_rate"), "{row}");
        // With room for all that is asked for twice, every use but the first is a hit.
        assert!(
            (rate("optimum_hit_rate") - (600.0 - 203.0) / 600.0).abs() < 1e-9,
            "{row}"
        );
    }
    let drawn = std::fs::read_to_string(&page).unwrap();
    assert!(drawn.contains("<svg") && drawn.contains("w-tiny-lfu") && drawn.contains("optimum"));
    assert!(
        !drawn.contains("http://") || !drawn.contains("src="),
        "needs nothing from elsewhere"
    );
    simulate(&trace, &arguments).failed_with("target_exists");
}

#[test]
fn some_policies_are_chosen_by_name() {
    let folder = tempdir().unwrap();
    let trace = write(folder.path(), "trace.jsonl", trace().as_bytes());
    let simulate = |policies| simulate(&trace, &["--policies", policies, "--capacities", "5"]);
    let rows = simulate("lru, arc,lru").done().json()["rows"].clone();
    let policies: Vec<&str> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["policy"].as_str().unwrap())
        .collect();
    assert_eq!(policies, ["lru", "arc"]);
    let refused = simulate("lru,fifo");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("\"fifo\"") && refused.stderr.contains("s3-fifo"));
}

#[test]
fn a_line_that_is_no_request_is_named() {
    let folder = tempdir().unwrap();
    let text = format!("{}\nnonsense\n", trace());
    let trace = write(folder.path(), "trace.jsonl", text.as_bytes());
    let arguments = ["--capacities", "5"];
    let message = simulate(&trace, &arguments).failed_with("bad_line");
    assert!(message.contains("trace.jsonl:201: "), "{message}");
    let absent = folder.path().join("absent");
    simulate(&absent, &arguments).failed_with("file_not_found");
}
