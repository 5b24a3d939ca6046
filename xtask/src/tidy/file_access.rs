//! Durable I/O goes through one `Volume` contract: no `std::fs` elsewhere.

use super::finding::Finding;
use super::source::{Source, line_of, occurrences};

/// The crates whose simulation would miss I/O that goes past the contract.
const CRATES: [&str; 3] = [
    "crates/tier-nvme/src",
    "crates/weightstore/src",
    "crates/graph-csr/src",
];

/// Where the operating system's files may be used.
const ALLOWED: [Place; 2] = [
    // The contract's real implementation.
    Place {
        path: "crates/tier-nvme/src/real",
        extent: Extent::Everything,
    },
    // Engines read and write through handles that a volume has opened.
    Place {
        path: "crates/tier-nvme/src/engine",
        extent: Extent::Handles,
    },
];

/// A file or directory, without the extension.
struct Place {
    path: &'static str,
    extent: Extent,
}

/// How much of the file system a place may name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// All of it.
    Everything,
    /// The type of an open file, but nothing that opens one.
    Handles,
}

/// What opens, changes or lists files.
const FORBIDDEN: [&str; 10] = [
    "std::fs",
    "rustix::fs",
    "tokio::fs",
    "libc::open",
    "libc::openat",
    "libc::fsync",
    "libc::fdatasync",
    "File::open",
    "File::create",
    "OpenOptions",
];

/// Finds uses of the file system outside the allowed places; tests are free.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let path = source.path();
    let applies = CRATES.iter().any(|directory| path.starts_with(directory));
    let extent = allowed_extent(source);
    if !applies || extent == Some(Extent::Everything) {
        return Vec::new();
    }
    let code = source.shipped_code();
    let is_handle = |offset: usize| {
        extent == Some(Extent::Handles) && code[offset..].starts_with("std::fs::File;")
    };
    let mut lines: Vec<(usize, &str)> = FORBIDDEN
        .iter()
        .flat_map(|&word| occurrences(&code, word).map(move |offset| (offset, word)))
        .filter(|&(offset, _)| !is_handle(offset))
        .chain(grouped_imports(&code).map(|offset| (offset, "std::fs")))
        .map(|(offset, word)| (line_of(&code, offset), word))
        .collect();
    lines.sort_unstable();
    lines.dedup_by_key(|(line, _)| *line);
    lines
        .into_iter()
        .map(|(line, word)| {
            let message = format!(
                "`{word}` goes past the volume contract, so the simulation cannot see it; take a \
                 volume as an argument"
            );
            Finding::new(path, line, message)
        })
        .collect()
}

fn allowed_extent(source: &Source) -> Option<Extent> {
    let stem = source.path().with_extension("");
    ALLOWED
        .iter()
        .find(|place| stem.starts_with(place.path))
        .map(|place| place.extent)
}

/// `use std::{…, fs, …}` names the module without the usual path.
fn grouped_imports(code: &str) -> impl Iterator<Item = usize> {
    code.match_indices("use std::{")
        .filter_map(|(start, opening)| {
            let body = start + opening.len();
            let end = code[body..]
                .find(';')
                .map_or(code.len(), |length| body + length);
            occurrences(&code[body..end], "fs")
                .next()
                .map(|offset| body + offset)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn lines(path: &str, text: &str) -> usize {
        check(&Source::new(PathBuf::from(path), text.to_owned())).len()
    }

    #[test]
    fn uses_are_found_however_they_are_written() {
        let path = "crates/tier-nvme/src/segment.rs";
        for text in [
            "use std::fs;",
            "use std::fs::File;",
            "use std::{io, fs::{self, File}};",
            "let file = File::open(path)?;",
            "let file = fs::OpenOptions::new();",
            "rustix::fs::fdatasync(file)?;",
        ] {
            assert_eq!(lines(path, text), 1, "{text}");
        }
    }

    #[test]
    fn engines_may_hold_files_but_not_open_them() {
        let path = "crates/tier-nvme/src/engine/attempt.rs";
        assert_eq!(lines(path, "use std::fs::File;"), 0);
        for text in [
            "use std::fs;",
            "use std::fs::{File, remove_file};",
            "File::open(path)?;",
        ] {
            assert_eq!(lines(path, text), 1, "{text}");
        }
    }

    #[test]
    fn other_code_other_crates_tests_and_the_real_volume_are_free() {
        let text = "use std::fs;";
        assert_eq!(lines("crates/core-view/src/map.rs", text), 0);
        assert_eq!(lines("crates/tier-nvme/tests/reopen.rs", text), 0);
        assert_eq!(lines("crates/tier-nvme/src/real.rs", text), 0);
        assert_eq!(lines("crates/tier-nvme/src/real/probe.rs", text), 0);
        assert_eq!(lines("crates/tier-nvme/src/realistic.rs", text), 1);
        let path = "crates/weightstore/src/manifest.rs";
        assert_eq!(
            lines(path, "#[cfg(test)]\nmod tests {\n use std::fs;\n}"),
            0
        );
        assert_eq!(
            lines(path, "// not std::fs\nlet offset = profs::File::opened();"),
            0
        );
    }
}
