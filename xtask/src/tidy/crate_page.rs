//! Each crate stands alone: its README shows how to add it and how to use it.

use std::path::{Path, PathBuf};

use super::finding::Finding;
use super::source::Source;

/// How a README says that there is nothing to show.
const NO_CODE: &str = "has no code yet";

/// Finds crates whose README is missing, shows nothing, or says that a crate with code has none.
pub(super) fn check(sources: &[Source], crates: &[PathBuf]) -> Vec<Finding> {
    crates
        .iter()
        .filter(|directory| directory.starts_with("crates"))
        .flat_map(|directory| check_one(sources, directory))
        .collect()
}

fn check_one(sources: &[Source], directory: &Path) -> Vec<Finding> {
    let page = directory.join("README.md");
    let Some(readme) = sources.iter().find(|source| source.path() == page) else {
        let message = "the crate has no README; say what it is, how to add it and how to use it";
        return vec![Finding::new(&page, 0, message)];
    };
    let source_directory = directory.join("src");
    let has_code = sources.iter().any(|source| {
        source.is_rust() && source.path().starts_with(&source_directory) && source.has_code()
    });
    if !has_code {
        return Vec::new();
    }
    let is_library = sources
        .iter()
        .any(|source| source.path() == source_directory.join("lib.rs"));
    let mut messages = Vec::new();
    if readme.text().contains(NO_CODE) {
        messages.push(format!(
            "the README says that the crate {NO_CODE}, but it has; describe it"
        ));
    }
    if is_library && !has_fence(readme.text(), &["toml"]) {
        messages.push("the README does not show what to add to Cargo.toml (```toml)".to_owned());
    }
    let languages: &[&str] = if is_library {
        &["rust"]
    } else {
        &["rust", "sh", "console", "text"]
    };
    if !has_fence(readme.text(), languages) {
        let fence = languages.first().copied().unwrap_or_default();
        messages.push(format!("the README has no working example (```{fence})"));
    }
    messages
        .into_iter()
        .map(|message| Finding::new(&page, 0, message))
        .collect()
}

/// Whether a fenced block in one of `languages` exists.
fn has_fence(text: &str, languages: &[&str]) -> bool {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("```"))
        .any(|info| {
            let language = info
                .split([',', ' ', '{'])
                .next()
                .unwrap_or_default()
                .trim();
            languages.contains(&language)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(readme: Option<&str>, root: (&str, &str)) -> usize {
        let mut sources = vec![Source::new(PathBuf::from(root.0), root.1.to_owned())];
        if let Some(text) = readme {
            sources.push(Source::new(
                PathBuf::from("crates/one/README.md"),
                text.to_owned(),
            ));
        }
        check(
            &sources,
            &[PathBuf::from("crates/one"), PathBuf::from("xtask")],
        )
        .len()
    }

    const LIBRARY: (&str, &str) = ("crates/one/src/lib.rs", "mod a;");
    const FULL: &str = "# one\n```toml\none = \"1\"\n```\n```rust,no_run\nuse one as _;\n```\n";

    #[test]
    fn a_library_shows_its_dependency_line_and_an_example() {
        assert_eq!(findings(Some(FULL), LIBRARY), 0);
        assert_eq!(findings(Some("# one\n"), LIBRARY), 2);
        assert_eq!(findings(None, LIBRARY), 1);
        assert_eq!(
            findings(Some(&format!("{FULL}\nIt {NO_CODE}.")), LIBRARY),
            1
        );
    }

    #[test]
    fn a_program_shows_a_command() {
        let program = ("crates/one/src/main.rs", "fn main() { run(); }");
        assert_eq!(findings(Some("# one\n```sh\none\n```\n"), program), 0);
        assert_eq!(findings(Some("# one\n"), program), 1);
    }

    #[test]
    fn a_crate_without_code_needs_no_example() {
        let empty = ("crates/one/src/lib.rs", "//! Docs.\n");
        assert_eq!(findings(Some(&format!("# one\nIt {NO_CODE}.")), empty), 0);
    }
}
