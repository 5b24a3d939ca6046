//! Marks in the sources: `// mutant: NAME` at the end of the line that is taken away.

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
            let (_, name) = content.split_once(PREFIX)?;
            Some(Mark {
                name: name.trim().to_owned(),
                file: file.to_owned(),
                line,
            })
        })
        .collect()
}

/// Names that are missing, and marks of names that nobody expects.
pub(super) fn problems(marks: &[Mark], expected: &[&str]) -> Vec<String> {
    let missing = expected
        .iter()
        .filter(|name| !marks.iter().any(|mark| mark.name == **name))
        .map(|name| format!("no line is marked `{PREFIX}{name}`"));
    let unknown = marks
        .iter()
        .filter(|mark| !expected.contains(&mark.name.as_str()))
        .map(|mark| {
            format!(
                "{}:{}: unknown mutant `{}`",
                mark.file.display(),
                mark.line + 1,
                mark.name
            )
        });
    missing.chain(unknown).collect()
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
    fn missing_and_unknown_names_are_problems() {
        let marks = find(Path::new("a.rs"), SOURCE);
        assert!(problems(&marks, &["no-fdatasync", "no-header-check"]).is_empty());
        let found = problems(&marks, &["no-fdatasync", "no-dirsync"]);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("no-dirsync"));
        assert!(found[1].contains("a.rs:3"), "{}", found[1]);
    }
}
