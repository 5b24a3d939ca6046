//! A text file, and for Rust its code apart from comments, literals and tests.

mod mask;

use std::path::{Path, PathBuf};

/// A text file.
#[derive(Clone, Debug)]
pub(super) struct Source {
    path: PathBuf,
    text: String,
    /// The text with comments and literals blanked, line by line; empty unless Rust.
    code: String,
}

impl Source {
    /// A file at `path`, relative to the workspace root.
    pub(super) fn new(path: PathBuf, text: String) -> Self {
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        let code = if is_rust {
            mask::blank(&text)
        } else {
            String::new()
        };
        Self { path, text, code }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text with comments and literals blanked; lines and columns are those of the text.
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// The code with test modules blanked too; nothing if the whole file serves tests.
    pub(super) fn shipped_code(&self) -> String {
        if self.serves_tests() {
            String::new()
        } else {
            mask::without_tests(&self.code)
        }
    }

    /// Whether the file is compiled for tests, examples or benches only.
    pub(super) fn serves_tests(&self) -> bool {
        let test_file = self.path.file_name().is_some_and(|name| name == "tests.rs");
        test_file
            || self.path.components().any(|component| {
                let name = component.as_os_str();
                name == "tests" || name == "examples" || name == "benches"
            })
    }

    /// Whether there is anything to compile besides attributes and an empty `main`.
    pub(super) fn has_code(&self) -> bool {
        let mut code = self.code.replace("fn main() {}", "");
        while let Some(start) = code.find("#![") {
            let end = code[start..]
                .find(']')
                .map_or(code.len(), |length| start + length + 1);
            code.replace_range(start..end, "");
        }
        !code.trim().is_empty()
    }
}

/// The line of a byte offset, counted from 0.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|&&byte| byte == b'\n')
        .count()
}

/// The offsets at which `word` stands with no identifier character on either side.
pub(super) fn occurrences<'a>(
    text: &'a str,
    word: &'a str,
) -> impl Iterator<Item = usize> + use<'a> {
    text.match_indices(word)
        .map(|(offset, _)| offset)
        .filter(move |&offset| {
            let before = text[..offset].chars().next_back();
            let after = text[offset + word.len()..].chars().next();
            !before.is_some_and(is_identifier) && !after.is_some_and(is_identifier)
        })
}

fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(path: &str, text: &str) -> Source {
        Source::new(PathBuf::from(path), text.to_owned())
    }

    #[test]
    fn words_are_whole() {
        let found: Vec<usize> = occurrences("fs std_fs fs2 ::fs;", "fs").collect();
        assert_eq!(found, [0, 16]);
    }

    #[test]
    fn test_files_are_recognised_by_place() {
        for path in [
            "crates/a/tests/t.rs",
            "crates/a/src/x/tests.rs",
            "benches/benches/b.rs",
        ] {
            assert!(rust(path, "").serves_tests(), "{path}");
        }
        assert!(!rust("crates/a/src/contest.rs", "").serves_tests());
    }

    #[test]
    fn documentation_and_attributes_are_not_code() {
        assert!(!rust("a.rs", "//! Docs.\n#![forbid(unsafe_code)]\nfn main() {}\n").has_code());
        assert!(rust("a.rs", "//! Docs.\nmod b;\n").has_code());
    }
}
