//! `bench nvme` and `bench weights`.

use tempfile::tempdir;

use crate::model::write;
use crate::process::{fields, stepwell};

#[test]
fn bench_measures_each_piece_of_work_and_draws_it() {
    let folder = tempdir().unwrap();
    let dir = folder.path().join("dir");
    std::fs::create_dir(&dir).unwrap();
    let page = folder.path().join("page.html");
    let (dir, page) = (dir.to_str().unwrap(), page.to_str().unwrap());
    let arguments = [
        "--json", "bench", "nvme", "--quick", "--rounds", "2", "--keys", "3000", "--dir", dir,
        "--report", page,
    ];
    let answer = stepwell(arguments).done().json();
    let names = [
        "dir",
        "floor_mode",
        "quick",
        "reopen_after_close",
        "reopen_after_kill",
        "rounds",
        "store_engine",
        "store_mode",
        "works",
    ];
    assert_eq!(fields(&answer), names);
    let works = answer["works"].as_array().unwrap();
    let ids: Vec<&str> = works
        .iter()
        .map(|work| work["work"].as_str().unwrap())
        .collect();
    let expected = [
        "put-1m",
        "put-4k",
        "get-1m-1",
        "get-1m-8",
        "get-order",
        "get-4k-1",
        "get-4k-32",
    ];
    assert_eq!(ids, expected);
    for work in works {
        assert!(work["ratio"].as_f64().unwrap() > 0.0, "{work}");
        assert!(work["is_met"].is_null(), "a quick run is no proof: {work}");
        for lane in ["floor", "store", "slab"] {
            assert!(work[lane]["bytes_per_s"].as_f64().unwrap() > 0.0, "{work}");
            assert!(work[lane]["cpu_s_per_gb"].as_f64().unwrap() > 0.0, "{work}");
        }
    }
    let floors = works[0]["other_floors"].as_array().unwrap();
    assert_eq!(floors.len(), 1, "fresh and overwritten extents");
    for opened in ["reopen_after_kill", "reopen_after_close"] {
        assert_eq!(answer[opened]["keys"], 3000);
        assert!(answer[opened]["keys_per_s"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(answer["reopen_after_close"]["batches_replayed"], 0);
    // Nothing stays behind.
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);

    let html = std::fs::read_to_string(page).unwrap();
    assert!(html.starts_with("<!DOCTYPE html>") && html.contains("<svg"));
    for work in works {
        let title = work["title"].as_str().unwrap();
        assert!(html.matches(title).count() >= 2, "{title}");
    }
    let own = html.replace("http://www.w3.org/2000/svg", "");
    assert!(
        !own.contains("http"),
        "the page needs nothing from elsewhere"
    );

    stepwell(arguments).failed_with("target_exists");
    assert_eq!(std::fs::read_to_string(page).unwrap(), html);
}

#[test]
fn bench_puts_models_in_and_takes_them_out() {
    let folder = tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let arguments = [
        "--json",
        "bench",
        "weights",
        "--quick",
        "--rounds",
        "1",
        "--model-bytes",
        "4MiB",
        "--dir",
        dir,
    ];
    let answer = stepwell(arguments).done().json();
    assert_eq!(answer["model_bytes"], 4 << 20);
    let works = answer["works"].as_array().unwrap();
    assert_eq!(works.len(), 5);
    for work in works {
        for field in [
            "bytes_per_s",
            "device_bytes_per_s",
            "cores_bytes_per_s",
            "ratio",
        ] {
            assert!(work[field].as_f64().unwrap() > 0.0, "{field} of {work}");
        }
        assert!(work["is_met"].is_null(), "a quick run is no proof: {work}");
    }
    // The fine-tune was found and stored as a difference.
    let stored = |index: usize| works[index]["stored_bytes"].as_u64().unwrap();
    assert!(stored(1) < stored(0) / 2, "{works:?}");
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
}

#[test]
fn bench_says_what_it_can_not_measure() {
    let folder = tempdir().unwrap();
    let plain = write(folder.path(), "plain", b"a file");
    let plain = plain.to_str().unwrap();
    let absent = folder.path().join("absent");
    let absent = absent.to_str().unwrap();
    stepwell(["--json", "bench", "nvme", "--dir", absent]).failed_with("file_not_found");
    stepwell(["--json", "bench", "nvme", "--quick", "--dir", plain]).failed_with("file");
    for wrong in [
        &["bench"][..],
        &["bench", "nvme", "--rounds", "0"],
        &["bench", "nvme", "--force"],
        &["bench", "weights", "--model-bytes", "2097151"],
    ] {
        assert_eq!(stepwell(wrong).code, 2, "{wrong:?}");
    }
}
