//! No file holds more than a reader can.

use super::finding::Finding;
use super::source::Source;

/// Lines of code, without blank lines and comments.
const CODE_LINES_MAX: usize = 600;

/// Finds files that are too long.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    // A string over several lines counts by the lines that hold code.
    let count = source
        .code()
        .lines()
        .filter(|line| !line.trim().is_empty())
        .count();
    if count <= CODE_LINES_MAX {
        return Vec::new();
    }
    let message = format!(
        "{count} lines of code, {CODE_LINES_MAX} at most; give the second concept in it a file of \
         its own"
    );
    vec![Finding::new(source.path(), 0, message)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn findings(text: &str) -> usize {
        check(&Source::new(PathBuf::from("a.rs"), text.to_owned())).len()
    }

    #[test]
    fn comments_and_blank_lines_do_not_count() {
        assert_eq!(findings(&"a();\n".repeat(CODE_LINES_MAX)), 0);
        assert_eq!(findings(&"a();\n".repeat(CODE_LINES_MAX + 1)), 1);
        assert_eq!(findings(&"// why\n\n".repeat(CODE_LINES_MAX)), 0);
    }
}
