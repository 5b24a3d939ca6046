//! Each crate alone, with each set of features that a user may choose.

use crate::command::Invocation;
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};
use crate::workspace::Package;

/// Checks each crate with its defaults, without them, with each feature alone, and with all.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let mut failures = Vec::new();
    let mut combinations = 0;
    for package in &context.workspace.packages {
        for flags in combinations_of(package) {
            combinations += 1;
            let finished = Invocation::cargo()
                .args(["check", "-p", &package.name])
                .args(&flags)
                .run(&context.shell)?;
            // A lint level on the command line would rebuild every dependency, so warnings are
            // recognised in the output instead.
            let warned = finished
                .lines
                .iter()
                .any(|line| line.starts_with("warning:"));
            if !finished.success || warned {
                let why = if warned {
                    "warnings".to_owned()
                } else {
                    finished.ending()
                };
                failures.push(format!("{} {}: {why}", package.name, flags.join(" ")));
            }
        }
    }
    Ok(Outcome::unless(
        &failures,
        format!("{combinations} combinations"),
    ))
}

fn combinations_of(package: &Package) -> Vec<Vec<String>> {
    let words = |flags: &[&str]| {
        flags
            .iter()
            .map(|&flag| flag.to_owned())
            .collect::<Vec<_>>()
    };
    let mut combinations = vec![Vec::new()];
    let features = feature_sets::checked(package);
    if features.is_empty() {
        return combinations;
    }
    combinations.push(words(&["--no-default-features"]));
    for feature in &features {
        combinations.push(words(&["--no-default-features", "--features", feature]));
    }
    if features.len() > 1 {
        combinations.push(words(&["--features", &features.join(",")]));
    }
    combinations
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn package(features: &[&str]) -> Package {
        Package {
            name: "one".to_owned(),
            directory: PathBuf::from("crates/one"),
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn a_crate_without_features_is_checked_once() {
        assert_eq!(combinations_of(&package(&[])), [Vec::<String>::new()]);
    }

    #[test]
    fn each_feature_is_checked_alone_and_all_together() {
        let shown: Vec<String> = combinations_of(&package(&["a", "b"]))
            .iter()
            .map(|flags| flags.join(" "))
            .collect();
        assert_eq!(
            shown,
            [
                "",
                "--no-default-features",
                "--no-default-features --features a",
                "--no-default-features --features b",
                "--features a,b",
            ]
        );
    }
}
