//! Whole dependency closures, as `cargo tree` prints them.

use super::table::TABLE;
use crate::command::{Echo, Invocation};
use crate::error::Error;
use crate::report::Context;

/// Checks the default build of each crate, and the builds with chosen features; returns how many
/// closures were looked at, and what was found.
pub(super) fn violations(context: &Context<'_>) -> Result<(usize, Vec<String>), Error> {
    let mut found = Vec::new();
    let mut closures = 0;
    for package in context.workspace.crates() {
        let tree = tree(context, &package.name, &[])?;
        closures += 1;
        for absence in TABLE.absences {
            if absence.exempt.contains(&package.name.as_str()) {
                continue;
            }
            found.extend(present(&tree, absence.packages).map(|name| {
                format!(
                    "{}: a default build pulls in {} through `{name}`; put it behind a feature \
                     (`cargo tree -p {} -i {name}` shows the way)",
                    package.name, absence.kind, package.name
                )
            }));
        }
    }
    for rule in TABLE.feature_absences {
        let exists = context
            .workspace
            .package(rule.package)
            .is_some_and(|package| {
                package
                    .features
                    .iter()
                    .any(|feature| feature == rule.feature)
            });
        if !exists {
            continue;
        }
        let flags = ["--no-default-features", "--features", rule.feature];
        let tree = tree(context, rule.package, &flags)?;
        closures += 1;
        found.extend(present(&tree, rule.packages).map(|name| {
            format!(
                "{}: the feature `{}` alone pulls in `{name}`; make that dependency optional",
                rule.package, rule.feature
            )
        }));
    }
    Ok((closures, found))
}

fn tree(context: &Context<'_>, package: &str, flags: &[&str]) -> Result<Vec<String>, Error> {
    let invocation = Invocation::cargo()
        .args([
            "tree",
            "-p",
            package,
            "-e",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(flags)
        .echo(Echo::Nothing);
    let shown = invocation.display();
    let finished = invocation.run(&context.shell)?;
    if finished.success {
        Ok(finished.lines)
    } else {
        Err(Error::CommandFailed {
            command: shown,
            detail: finished.lines.join("\n"),
        })
    }
}

/// Those of `names` that a line of the tree begins with.
fn present<'a>(tree: &[String], names: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    names.iter().copied().filter(|name| {
        tree.iter()
            .any(|line| line.split_whitespace().next() == Some(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_matched_by_their_whole_name() {
        let tree = [
            "s3-sync v0.1.0 (/w/crates/s3-sync)",
            "tokio-util v0.7.0",
            "ring v0.17.8",
            "ring v0.17.8 (*)",
        ]
        .map(str::to_owned);
        assert_eq!(
            present(&tree, &["tokio", "ring"]).collect::<Vec<_>>(),
            ["ring"]
        );
    }
}
