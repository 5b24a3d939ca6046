//! Unsafe code stays where memory or a kernel interface demands it.

use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::source::{Source, line_of, occurrences};

/// Where `unsafe` may be written, and why.
const ALLOWED: [(&str, &str); 6] = [
    ("crates/core-alloc", "allocators hand out memory"),
    (
        "crates/core-view",
        "views share memory and cross foreign interfaces",
    ),
    ("crates/tier-cuda", "the driver's interface is foreign"),
    (
        "crates/tier-nvme",
        "the ring and the map are kernel interfaces",
    ),
    (
        "crates/weightstore/src/codec/rans/avx2.rs",
        "vector registers are the processor's interface",
    ),
    (
        "benches/benches/alloc.rs",
        "what it measures ours against is foreign",
    ),
];

/// What every other crate root must say.
const FORBID: &str = "#![forbid(unsafe_code)]";
/// What the root of a crate says in which only some file may have unsafe code.
const DENY: &str = "#![deny(unsafe_code)]";

/// Finds `unsafe` outside the allowed places.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    if is_allowed(source.path()) {
        return Vec::new();
    }
    occurrences(source.code(), "unsafe")
        .map(|offset| {
            let message = "this crate has no unsafe code; use a safe interface of a lower crate";
            Finding::new(source.path(), line_of(source.code(), offset), message)
        })
        .collect()
}

/// Finds crate roots that do not forbid unsafe code; those without code may stay silent.
pub(super) fn check_roots(sources: &[Source], crates: &[PathBuf]) -> Vec<Finding> {
    crates
        .iter()
        .filter(|directory| !is_allowed(directory))
        .flat_map(|directory| {
            let line = line_for(directory);
            ["lib.rs", "main.rs"].map(|root| (directory.join("src").join(root), line))
        })
        .filter_map(|(root, line)| {
            let source = sources.iter().find(|source| source.path() == root)?;
            let lacks = source.has_code() && !source.code().contains(line);
            lacks.then(|| Finding::new(source.path(), 0, format!("add `{line}`")))
        })
        .collect()
}

/// What the root of a crate has to say.
fn line_for(directory: &Path) -> &'static str {
    let own = directory.join("src");
    let is_part = |(place, _): &(&str, _)| Path::new(place).starts_with(&own);
    match ALLOWED.iter().any(is_part) {
        true => DENY,
        false => FORBID,
    }
}

fn is_allowed(path: &Path) -> bool {
    ALLOWED.iter().any(|(place, _)| path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(PathBuf::from(path), text.to_owned())
    }

    #[test]
    fn unsafe_is_found_outside_its_places() {
        let text = "// unsafe\nfn a() { unsafe { b() } }";
        assert_eq!(check(&source("crates/weightstore/src/a.rs", text)).len(), 1);
        assert_eq!(check(&source("crates/core-alloc/src/a.rs", text)).len(), 0);
        assert_eq!(
            check(&source("crates/core-alloc-extra/src/a.rs", text)).len(),
            1
        );
        assert_eq!(
            check(&source("xtask/src/a.rs", "#![forbid(unsafe_code)]")).len(),
            0
        );
    }

    #[test]
    fn roots_with_code_must_forbid_it() {
        let crates = ["crates/blockmgr", "crates/core-view"].map(PathBuf::from);
        let silent = "//! Docs.\npub mod a;\n";
        let found = |text: &str| {
            let sources = [
                source("crates/blockmgr/src/lib.rs", text),
                source("crates/core-view/src/lib.rs", silent),
            ];
            check_roots(&sources, &crates).len()
        };
        assert_eq!(found(silent), 1);
        assert_eq!(
            found("//! Docs.\n// #![forbid(unsafe_code)]\npub mod a;\n"),
            1
        );
        assert_eq!(found("//! Docs.\n#![forbid(unsafe_code)]\npub mod a;\n"), 0);
        assert_eq!(found("//! No code yet.\n"), 0);
    }

    #[test]
    fn a_crate_with_one_unsafe_file_denies_it_elsewhere() {
        let crates = [PathBuf::from("crates/weightstore")];
        let found = |text: &str| {
            let root = source("crates/weightstore/src/lib.rs", text);
            check_roots(&[root], &crates).len()
        };
        assert_eq!(found("//! Docs.\npub mod a;\n"), 1);
        assert_eq!(found("//! Docs.\n#![deny(unsafe_code)]\npub mod a;\n"), 0);
        let text = "fn a() { unsafe { b() } }";
        let kernel = "crates/weightstore/src/codec/rans/avx2.rs";
        assert_eq!(check(&source(kernel, text)).len(), 0);
    }
}
