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
            "restore tune"
        ]
    );
    for step in steps {
        assert!(step["ratio"].as_f64().unwrap() > 0.0, "{step}");
        assert!(step["floor_bytes_per_s"].as_f64().unwrap() > 0.0, "{step}");
    }
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);

    let bad = write(folder.path(), "bad", b"{}");
    let bad = bad.to_str().unwrap();
    stepwell(["--json", "tour", "--dir", dir, "--model", bad]).failed_with("not_safetensors");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
}
