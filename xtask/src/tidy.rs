//! `cargo xtask tidy`: the house rules that no compiler checks.

mod crate_page;
mod file_access;
mod file_length;
mod finding;
mod forbidden_text;
mod links;
mod lint_attributes;
mod names;
mod source;
mod unsafe_code;

use std::path::PathBuf;

use finding::Finding;
use source::Source;

use crate::error::Error;
use crate::report::{Context, Outcome};
use crate::tracked;

/// Checks every text file of the checkout.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let files = tracked::files(&context.shell.root)?;
    let mut sources = Vec::new();
    for file in &files {
        if let Some(text) = tracked::text(&context.shell.root, file)? {
            sources.push(Source::new(file.clone(), text));
        }
    }
    let crates: Vec<PathBuf> = context
        .workspace
        .packages
        .iter()
        .map(|package| package.directory.clone())
        .collect();
    let findings = findings(&files, &sources, &crates);
    for finding in &findings {
        println!("    {finding}");
    }
    Ok(match findings.len() {
        0 => Outcome::Passed(format!("{} files", files.len())),
        count => Outcome::Failed(format!("{count} findings, listed above")),
    })
}

/// Everything wrong with a tree of `files`, of which `sources` are text, with members at `crates`.
fn findings(files: &[PathBuf], sources: &[Source], crates: &[PathBuf]) -> Vec<Finding> {
    let mut findings = names::top_level(files);
    findings.extend(names::modules(files));
    for source in sources {
        findings.extend(forbidden_text::check(source));
        if source.is_rust() {
            findings.extend(lint_attributes::check(source));
            findings.extend(file_access::check(source));
            findings.extend(file_length::check(source));
            findings.extend(unsafe_code::check(source));
            findings.extend(names::inline_modules(source));
        }
    }
    findings.extend(unsafe_code::check_roots(sources, crates));
    findings.extend(crate_page::check(sources, crates));
    findings.extend(links::check(files, sources));
    findings.sort();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_tree_has_no_findings_and_a_planted_fault_has_one() {
        let readme = "# one\n\n```toml\none = \"1\"\n```\n\n```rust\nuse one as _;\n```\n";
        let tree = |library: &str| {
            let sources = [
                ("README.md", "# Whole\n\n[one](crates/one/README.md#one)\n"),
                ("crates/one/README.md", readme),
                ("crates/one/src/lib.rs", library),
            ]
            .map(|(path, text)| Source::new(PathBuf::from(path), text.to_owned()));
            let files: Vec<PathBuf> = sources
                .iter()
                .map(|source| source.path().to_owned())
                .collect();
            findings(&files, &sources, &[PathBuf::from("crates/one")])
        };
        let sound = "//! One.\n#![forbid(unsafe_code)]\n/// A.\npub struct A;\n";
        assert!(tree(sound).is_empty(), "{:?}", tree(sound));
        let planted = tree(&format!("{sound}#[allow(dead_code)]\nstruct B;\n"));
        assert_eq!(planted.len(), 1);
        assert!(
            planted[0]
                .to_string()
                .starts_with("crates/one/src/lib.rs:5: ")
        );
    }
}
