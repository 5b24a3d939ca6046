//! Names of files and modules.

use std::path::{Component, Path, PathBuf};

use super::finding::Finding;
use super::source::{Source, line_of, occurrences};

/// What the top level holds besides dot-files.
const TOP_LEVEL: [&str; 10] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "benches",
    "crates",
    "docs",
    "rust-toolchain.toml",
    "xtask",
];

/// Module names that say nothing.
const EMPTY_NAMES: [&str; 7] = [
    "common", "helper", "helpers", "manager", "misc", "util", "utils",
];

/// Finds entries of the top level that are not in its list.
pub(super) fn top_level(files: &[PathBuf]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = files
        .iter()
        .filter_map(|file| file.components().next())
        .map(|entry| Path::new(entry.as_os_str()))
        .filter(|entry| {
            let name = entry.to_string_lossy();
            !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_ref())
        })
        .map(|entry| {
            let message = "the top level holds only what the style names; move it below a crate or \
                           `docs`";
            Finding::new(entry, 0, message)
        })
        .collect();
    findings.dedup();
    findings
}

/// Finds source files and directories whose name is no concept.
pub(super) fn modules(files: &[PathBuf]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|file| empty_name(file).map(|name| Finding::new(file, 0, advice(&name))))
        .collect()
}

/// Finds modules written inside a file whose name is no concept.
pub(super) fn inline_modules(source: &Source) -> Vec<Finding> {
    let code = source.code();
    occurrences(code, "mod")
        .filter_map(|offset| {
            let name = code[offset + "mod".len()..]
                .trim_start()
                .split(|character: char| !character.is_alphanumeric() && character != '_')
                .next()?;
            EMPTY_NAMES
                .contains(&name)
                .then(|| Finding::new(source.path(), line_of(code, offset), advice(name)))
        })
        .collect()
}

fn empty_name(file: &Path) -> Option<String> {
    file.with_extension("")
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => name.to_str().map(str::to_owned),
            _ => None,
        })
        .find(|name| EMPTY_NAMES.contains(&name.as_str()))
}

fn advice(name: &str) -> String {
    format!("`{name}` names no concept; call the module by what it holds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn strangers_at_the_top_are_found_once() {
        let files = paths(&[
            "Cargo.toml",
            ".ci/run",
            "docs/a.md",
            "scripts/a",
            "scripts/b",
        ]);
        let found = top_level(&files);
        assert_eq!(found.len(), 1);
        assert!(found[0].to_string().starts_with("scripts:1:"));
    }

    #[test]
    fn names_without_a_concept_are_found() {
        let files = paths(&[
            "crates/a/src/utils.rs",
            "crates/a/tests/common/mod.rs",
            "crates/a/src/manager/pool.rs",
            "crates/a/src/manageress.rs",
            "docs/common/a.md",
        ]);
        assert_eq!(modules(&files).len(), 3);
    }

    #[test]
    fn inline_modules_are_found() {
        let source = |text: &str| Source::new(PathBuf::from("a.rs"), text.to_owned());
        assert_eq!(
            inline_modules(&source("mod a;\npub(crate) mod helpers {\n}\n")).len(),
            1
        );
        assert_eq!(
            inline_modules(&source("mod helpers_of_none;\n// mod utils\n")).len(),
            0
        );
    }
}
