//! `doctor` and `tour`.

use tempfile::tempdir;

use crate::model::{file, write};
use crate::process::{fields, stepwell};

#[test]
fn doctor_says_what_there_is_and_what_is_missing() {
    let folder = tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let answer = stepwell(["--json", "doctor", "--dir", dir]).done().json();
    let abilities = answer["abilities"].as_array().unwrap();
    let names: Vec<&str> = abilities
        .iter()
        .map(|a| a["ability"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "io_uring",
            "O_DIRECT",
            "writing",
            "huge pages",
            "GPU driver",
            "NIXL"
        ]
    );
    for ability in abilities {
        assert_eq!(
            fields(ability),
            ["ability", "available", "enables", "finding"]
        );
        assert_ne!(ability["finding"], "");
    }
    for number in ["free_bytes", "sync_median_us", "cores", "memory_bytes"] {
        assert!(answer[number].as_f64().unwrap() > 0.0, "{number}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let text = stepwell(["doctor", "--dir", dir]).done().stdout;
    assert!(text.contains("missing") && text.contains("NIXL"), "{text}");
    stepwell(["--json", "doctor", "--dir", "does/not/exist"]).failed_with("file_not_found");
}

#[test]
fn tour_brings_a_model_back_and_cleans_up() {
    let folder = tempdir().unwrap();
    let model = write(folder.path(), "m.safetensors", &file(40));
    let dir = folder.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    let (dir, model) = (dir.to_str().unwrap(), model.to_str().unwrap());
    let answer = stepwell(["--json", "tour", "--dir", dir, "--model", model]);
    let answer = answer.done().json();
    assert_eq!(answer["identical"], true);
    assert_eq!(answer["deduplication"]["new_tensors"], 1);
    assert_eq!(answer["deduplication"]["deduplicated_tensors"], 4);
    // The small ones are stored alone, what is no float is shared.
    assert_eq!(answer["fine_tune"]["delta_tensors"], 2);
    let steps = answer["steps"].as_array().unwrap();
    let names: Vec<&str> = steps
        .iter()
        .map(|step| step["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "store",
            "store 2nd",
            "store tune",
            "verify",
            "restore",
            "restore 2nd",
            "restore tune",
            "kv replay"
        ]
    );
    for step in steps {
        assert!(step["ratio"].as_f64().unwrap() > 0.0, "{step}");
        assert!(step["floor_bytes_per_s"].as_f64().unwrap() > 0.0, "{step}");
    }
    let cache = &answer["kv_cache"];
    let names = [
        "block_bytes",
        "blocks",
        "dropped",
        "elapsed_s",
        "hit_rate",
        "mismatched_blocks",
        "requests",
        "restart",
        "tiers",
        "trace",
        "verified_blocks",
    ];
    assert_eq!(fields(cache), names);
    assert!(cache["trace"].is_null());
    assert_eq!(
        (&cache["requests"], &cache["blocks"]),
        (&120.into(), &2400.into())
    );
    assert_eq!(cache["mismatched_blocks"], 0);
    let tiers = cache["tiers"].as_array().unwrap();
    let hits: Vec<u64> = tiers
        .iter()
        .map(|tier| tier["hits"].as_u64().unwrap())
        .collect();
    assert!(
        hits.len() == 3 && hits.iter().all(|hits| *hits > 0),
        "{cache}"
    );
    // What came from below the engine's memory is verified, all of it; the disk holds all that there is, so every block
    // but its first is a hit.
    assert_eq!(cache["verified_blocks"], hits[1] + hits[2]);
    assert_eq!(hits.iter().sum::<u64>(), 2400 - 504);
    let restart = &cache["restart"];
    assert_eq!(restart["after_requests"], 60);
    assert_eq!(restart["restored_blocks"], restart["stored_blocks"]);
    assert!(restart["stored_blocks"].as_u64().unwrap() > 0, "{restart}");
    assert!(restart["hits"].as_u64().unwrap() > 0, "{restart}");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);

    let bad = write(folder.path(), "bad", b"{}");
    let bad = bad.to_str().unwrap();
    stepwell(["--json", "tour", "--dir", dir, "--model", bad]).failed_with("not_safetensors");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
}

#[test]
fn tour_replays_a_given_trace() {
    let folder = tempdir().unwrap();
    let model = write(folder.path(), "m.safetensors", &file(40));
    let line =
        r#"{"timestamp": 1, "input_length": 1536, "output_length": 9, "hash_ids": [4, 5, 6]}"#;
    let trace = write(
        folder.path(),
        "trace.jsonl",
        [line, line].join("\n").as_bytes(),
    );
    let dir = folder.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let tour = |trace: &std::path::Path| {
        let arguments = [
            "--json",
            "tour",
            "--dir",
            &path(&dir),
            "--model",
            &path(&model),
        ];
        let given = ["--trace", &path(trace)];
        stepwell([&arguments[..], &given].concat())
    };
    let answer = tour(&trace).done().json();
    let cache = &answer["kv_cache"];
    assert_eq!(cache["trace"], path(&trace));
    // The same prompt twice, with the restart between: all of it comes from the disk.
    assert_eq!(
        (&cache["requests"], &cache["blocks"]),
        (&2.into(), &6.into())
    );
    assert_eq!(cache["restart"]["restored_blocks"], 3);
    assert_eq!(cache["restart"]["hits"], 3);
    assert_eq!(cache["verified_blocks"], 3);

    let bad = write(
        folder.path(),
        "bad.jsonl",
        [line, "{"].join("\n").as_bytes(),
    );
    tour(&bad).failed_with("bad_line");
    tour(&folder.path().join("absent")).failed_with("file_not_found");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}
