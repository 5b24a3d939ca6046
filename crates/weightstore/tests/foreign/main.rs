//! Imports of files that Python wrote: by numpy, by torch, and as torch does.
//!
//! `STEPWELL_PYTHON` names an interpreter, `python3` if unset; without numpy it is skipped and says so.
//! `STEPWELL_TORCH_PYTHON` names one that has torch; files that torch wrote are in `tests/data/torch`.
#![cfg(all(feature = "native", feature = "foreign"))]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod listing;
mod python;

use std::path::Path;

use listing::Listing;

#[test]
fn what_python_writes_is_imported_bit_for_bit() {
    let python = std::env::var("STEPWELL_PYTHON").unwrap_or_else(|_| "python3".into());
    let folder = tempfile::tempdir().unwrap();
    if let Some(text) = python::output_of(&python, "write_models.py", folder.path()) {
        let checked = Listing::parse(&text).check(folder.path());
        assert!(checked.imported >= 5, "{checked:?}");
    }
}

#[test]
fn what_torch_writes_is_imported_bit_for_bit() {
    let Ok(python) = std::env::var("STEPWELL_TORCH_PYTHON") else {
        println!("skipped: STEPWELL_TORCH_PYTHON names no Python that has torch");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let text = python::output_of(&python, "write_torch.py", folder.path());
    let text = text.unwrap_or_else(|| panic!("{python} has no torch"));
    let checked = Listing::parse(&text).check(folder.path());
    println!("{}: {checked:?}", text.lines().next().unwrap_or_default());
    assert!(
        checked.imported >= 10 && checked.refused >= 10,
        "{checked:?}"
    );
}

/// Written by `write_torch.py FOLDER small`, which said what is in `expected.txt`.
#[test]
fn files_of_torch_are_imported_bit_for_bit() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch");
    let text = std::fs::read_to_string(folder.join("expected.txt")).unwrap();
    let checked = Listing::parse(&text).check(&folder);
    assert!(
        checked.imported >= 6 && checked.refused >= 10,
        "{checked:?}"
    );
}
