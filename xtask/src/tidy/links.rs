//! Links between documents lead somewhere.

use std::path::{Component, Path, PathBuf};

use super::finding::Finding;
use super::source::Source;

/// Finds links in Markdown to files, directories or headings that do not exist.
pub(super) fn check(files: &[PathBuf], sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| is_markdown(source.path())) {
        for (line, target) in links(source.text()) {
            if let Some(message) = problem(source.path(), &target, files, sources) {
                findings.push(Finding::new(source.path(), line, message));
            }
        }
    }
    findings
}

fn problem(page: &Path, link: &str, files: &[PathBuf], sources: &[Source]) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() {
        page.to_owned()
    } else {
        let directory = page.parent().unwrap_or(Path::new(""));
        match resolve(&directory.join(file)) {
            Some(target) => target,
            None => return Some(format!("the link `{link}` leads out of the repository")),
        }
    };
    let exists = target.as_os_str().is_empty()
        || files
            .iter()
            .any(|known| *known == target || known.starts_with(&target));
    if !exists {
        return Some(format!(
            "the link `{link}` leads to no file; correct or remove it"
        ));
    }
    let pointed = sources.iter().find(|source| source.path() == target)?;
    let has_heading = anchor.is_empty()
        || !is_markdown(&target)
        || headings(pointed.text())
            .iter()
            .any(|heading| heading == anchor);
    (!has_heading)
        .then(|| format!("the link `{link}` leads to no heading; correct the part after #"))
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// Resolves `.` and `..`; nothing if that leaves the root.
fn resolve(path: &Path) -> Option<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !resolved.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(resolved)
}

/// The lines outside fenced blocks, with their numbers from 0.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        if fence {
            fenced = !fenced;
        }
        !fenced && !fence
    })
}

/// All inline and reference links with their lines from 0.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code_spans(line);
        for (offset, opening) in line.match_indices("](") {
            let rest = &line[offset + opening.len()..];
            if let Some((target, _)) = rest.split_once(')') {
                found.push((number, destination(target)));
            }
        }
        let definition = line
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = definition {
            found.push((number, destination(target)));
        }
    }
    found
}

/// A link's target without its title and angle brackets.
fn destination(target: &str) -> String {
    let target = target.trim();
    let bare = match target
        .strip_prefix('<')
        .and_then(|rest| rest.split_once('>'))
    {
        Some((inside, _)) => inside,
        None => target.split_whitespace().next().unwrap_or_default(),
    };
    bare.to_owned()
}

fn without_code_spans(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The anchors of a page's headings.
fn headings(text: &str) -> Vec<String> {
    prose(text)
        .filter_map(|(_, line)| line.strip_prefix('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .map(|heading| {
            heading
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<Finding> {
        let sources = [
            Source::new(PathBuf::from("docs/page.md"), text.to_owned()),
            Source::new(
                PathBuf::from("docs/other.md"),
                "# The `ring`, and more\n".to_owned(),
            ),
        ];
        let files: Vec<PathBuf> = [
            "README.md",
            "docs/page.md",
            "docs/other.md",
            "crates/a/x.rs",
        ]
        .map(PathBuf::from)
        .to_vec();
        check(&files, &sources)
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        for text in [
            "[a](other.md)",
            "[a](./other.md#the-ring-and-more \"title\")",
            "[a](../README.md), [b](<../crates/a>)",
            "# Here\n[a](#here)",
            "[a](https://example.org/none)",
            "[a]: ../crates/a/x.rs",
            "`[a](none.md)`",
            "```text\n[a](none.md)\n```",
        ] {
            assert!(findings(text).is_empty(), "{text}: {:?}", findings(text));
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        for (text, said) in [
            ("[a](none.md)", "no file"),
            ("[a]: none.md", "no file"),
            ("[a](other.md#none)", "no heading"),
            ("[a](#none)", "no heading"),
            ("[a](../../else.md)", "out of the repository"),
            ("[a](/etc/passwd)", "out of the repository"),
        ] {
            let found = findings(text);
            assert_eq!(found.len(), 1, "{text}");
            assert!(found[0].to_string().contains(said), "{}", found[0]);
        }
    }
}
