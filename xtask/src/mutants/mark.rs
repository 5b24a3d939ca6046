//! Marks in the sources: `// mutant: NAME` at the end of the line that is taken away.
//!
//! The formatter moves such a comment to a line of its own where a line may not end with one; a
//! mark that stands alone therefore belongs to the line above it.

use std::path::{Path, PathBuf};

/// What a mark begins with.
const PREFIX: &str = "// mutant: ";

/// A marked line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) name: String,
    pub(super) file: PathBuf,
    /// Counted from 0.
    line: usize,
}

/// All marks of a file.
pub(super) fn find(file: &Path, text: &str) -> Vec<Mark> {
    text.lines()
        .enumerate()
        .filter_map(|(line, content)| {
            let (code, name) = content.split_once(PREFIX)?;
            let line = if code.trim().is_empty() {
                line.checked_sub(1)?
            } else {
                line
            };
            Some(Mark {
                name: name.trim().to_owned(),
                file: file.to_owned(),
                line,
            })
        })
        .collect()
}

/// The names of all marks, each once.
pub(super) fn names(marks: &[Mark]) -> Vec<&str> {
    let mut names: Vec<&str> = marks.iter().map(|mark| mark.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The names of `required` that no mark has, in words.
pub(super) fn missing(marks: &[Mark], required: &[&str]) -> Vec<String> {
    required
        .iter()
        .filter(|name| !marks.iter().any(|mark| mark.name == **name))
        .map(|name| format!("no line is marked `{PREFIX}{name}`"))
        .collect()
}

impl Mark {
    /// The text without the marked statement; a marked `if … {` stays, never taken.
    pub(super) fn remove_from(&self, text: &str) -> String {
        let mut mutated = String::with_capacity(text.len());
        for (line, content) in text.lines().enumerate() {
            if line == self.line {
                mutated.push_str(&neutralised(content));
            } else {
                mutated.push_str(content);
            }
            mutated.push('\n');
        }
        mutated
    }
}

/// Keeps the line's place so that line numbers of failures fit the original.
fn neutralised(content: &str) -> String {
    let code = content
        .split_once(PREFIX)
        .map_or(content, |(code, _)| code)
        .trim_end();
    match code
        .trim_start()
        .strip_prefix("if ")
        .and_then(|rest| rest.strip_suffix('{'))
    {
        Some(condition) => format!("if false && ({}) {{", condition.trim_end()),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "\
fn commit(&mut self) {
    self.file.sync_data()?; // mutant: no-fdatasync
    if found != expected { // mutant: no-header-check
        return Err(torn());
    }
}
";

    #[test]
    fn marks_are_found_with_their_lines() {
        let marks = find(Path::new("a.rs"), SOURCE);
        assert_eq!(marks.len(), 2);
        assert_eq!((marks[0].name.as_str(), marks[0].line), ("no-fdatasync", 1));
        assert_eq!(
            (marks[1].name.as_str(), marks[1].line),
            ("no-header-check", 2)
        );
    }

    #[test]
    fn statements_vanish_and_conditions_never_hold() {
        let marks = find(Path::new("a.rs"), SOURCE);
        let without_sync = marks[0].remove_from(SOURCE);
        assert!(!without_sync.contains("sync_data") && without_sync.contains("found != expected"));
        assert_eq!(without_sync.lines().count(), SOURCE.lines().count());
        let without_check = marks[1].remove_from(SOURCE);
        assert!(
            without_check.contains("if false && (found != expected) {"),
            "{without_check}"
        );
    }

    #[test]
    fn a_mark_that_stands_alone_belongs_to_the_line_above() {
        let source =
            "while let Some(a) = next()\n    .filter(in_order)\n// mutant: no-order\n{\n}\n";
        let marks = find(Path::new("a.rs"), source);
        let mutated = marks[0].remove_from(source);
        assert!(
            !mutated.contains("filter") && mutated.contains("next()"),
            "{mutated}"
        );
    }

    #[test]
    fn missing_names_are_told_and_further_ones_are_kept() {
        let marks = find(Path::new("a.rs"), SOURCE);
        assert!(missing(&marks, &["no-fdatasync"]).is_empty());
        let found = missing(&marks, &["no-fdatasync", "no-dirsync"]);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("no-dirsync"));
        assert_eq!(names(&marks), ["no-fdatasync", "no-header-check"]);
    }
}
