//! Which features are checked and which are run on a machine with nothing but a CPU.

use crate::workspace::{Package, Workspace};

/// A feature that some rows leave out.
pub(crate) struct Exclusion {
    package: &'static str,
    feature: &'static str,
    /// Left out of compilation too, not only of runs.
    from_checks: bool,
}

/// The features that need more than a CPU. `cuda` is not among them: its library is loaded at run
/// time, so it compiles and skips anywhere.
const EXCLUSIONS: [Exclusion; 2] = [
    // Runs against a real device named by STEPWELL_NVME_DIR.
    Exclusion {
        package: "tier-nvme",
        feature: "integration",
        from_checks: false,
    },
    // Runs for hours.
    Exclusion {
        package: "tier-nvme",
        feature: "stress",
        from_checks: false,
    },
];

/// The features of `package` that compile on any machine.
pub(crate) fn checked(package: &Package) -> Vec<&str> {
    without(package, |exclusion| exclusion.from_checks)
}

/// The features of `package` whose tests run on any machine.
pub(crate) fn run(package: &Package) -> Vec<&str> {
    without(package, |_| true)
}

fn without(package: &Package, excludes: impl Fn(&Exclusion) -> bool) -> Vec<&str> {
    package
        .features
        .iter()
        .map(String::as_str)
        .filter(|feature| {
            !EXCLUSIONS.iter().any(|exclusion| {
                exclusion.package == package.name
                    && exclusion.feature == *feature
                    && excludes(exclusion)
            })
        })
        .collect()
}

/// `--features` arguments that switch on, for all of `packages`, what `choose` picks.
pub(crate) fn arguments<'a>(
    packages: impl IntoIterator<Item = &'a Package>,
    choose: impl Fn(&Package) -> Vec<&str>,
) -> Vec<String> {
    let features: Vec<String> = packages
        .into_iter()
        .flat_map(|package| {
            choose(package)
                .into_iter()
                .map(|feature| format!("{}/{feature}", package.name))
                .collect::<Vec<_>>()
        })
        .collect();
    if features.is_empty() {
        Vec::new()
    } else {
        vec!["--features".to_owned(), features.join(",")]
    }
}

/// `--workspace` with all features that compile anywhere.
pub(crate) fn workspace_checked(workspace: &Workspace) -> Vec<String> {
    let mut all = vec!["--workspace".to_owned()];
    all.extend(arguments(&workspace.packages, checked));
    all
}

/// `--workspace` with all features whose tests run anywhere.
pub(crate) fn workspace_run(workspace: &Workspace) -> Vec<String> {
    let mut all = vec!["--workspace".to_owned()];
    all.extend(arguments(&workspace.packages, run));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn package(name: &str, features: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            directory: PathBuf::from("crates").join(name),
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn a_device_feature_is_checked_but_not_run() {
        let nvme = package("tier-nvme", &["integration", "stress", "testing"]);
        assert_eq!(checked(&nvme), ["integration", "stress", "testing"]);
        assert_eq!(run(&nvme), ["testing"]);
        let other = package("weightstore", &["stress"]);
        assert_eq!(run(&other), ["stress"]);
    }

    #[test]
    fn arguments_name_the_package_of_each_feature() {
        let packages = [
            package("a", &["x", "y"]),
            package("b", &["x"]),
            package("c", &[]),
        ];
        assert_eq!(arguments(&packages, checked), ["--features", "a/x,a/y,b/x"]);
        assert!(arguments(&packages[2..], checked).is_empty());
    }
}
