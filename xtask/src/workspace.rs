//! The workspace as `cargo metadata` tells it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::error::Error;

/// What a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DependencyKind {
    /// Needed by the crate itself.
    Normal,
    /// Needed by its build script.
    Build,
    /// Needed by its tests, examples and benches.
    Dev,
}

/// A direct dependency of a member.
#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: DependencyKind,
    pub(crate) optional: bool,
}

/// What a target of a package is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetKind {
    /// A library of any crate type.
    Library,
    /// A program.
    Binary,
    /// An example.
    Example,
    /// An integration test.
    Test,
    /// A benchmark.
    Bench,
    /// A build script.
    BuildScript,
}

/// A target of a package.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: TargetKind,
}

/// A member of the workspace.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Relative to the workspace root.
    pub(crate) directory: PathBuf,
    /// Without `default`, sorted.
    pub(crate) features: Vec<String>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

impl Package {
    /// Whether the package has a target of this kind, and by this name if one is given.
    pub(crate) fn has_target(&self, kind: TargetKind, name: Option<&str>) -> bool {
        self.targets
            .iter()
            .any(|target| target.kind == kind && name.is_none_or(|name| target.name == name))
    }
}

/// All members.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) packages: Vec<Package>,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load(root: &Path) -> Result<Self, Error> {
        let command = "cargo metadata --format-version 1 --no-deps".to_owned();
        let output = Command::new("cargo")
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .current_dir(root)
            .output()
            .map_err(|source| Error::Command {
                command: command.clone(),
                source,
            })?;
        if !output.status.success() {
            let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::CommandFailed { command, detail });
        }
        let metadata =
            serde_json::from_slice(&output.stdout).map_err(|source| Error::Metadata {
                field: format!("JSON ({source})"),
            })?;
        Self::parse(&metadata)
    }

    /// Reads what is needed out of the answer.
    pub(crate) fn parse(metadata: &Value) -> Result<Self, Error> {
        let root = PathBuf::from(text(metadata, "workspace_root")?);
        let mut packages = list(metadata, "packages")?
            .iter()
            .map(|package| parse_package(package, &root))
            .collect::<Result<Vec<_>, _>>()?;
        packages.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { root, packages })
    }

    /// The member of this name.
    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }

    /// The members that live under `crates/`.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| package.directory.starts_with("crates"))
    }
}

fn parse_package(package: &Value, root: &Path) -> Result<Package, Error> {
    let manifest = PathBuf::from(text(package, "manifest_path")?);
    let directory = manifest
        .parent()
        .and_then(|directory| directory.strip_prefix(root).ok())
        .ok_or_else(|| Error::Metadata {
            field: "manifest_path below workspace_root".to_owned(),
        })?
        .to_owned();
    let features = package["features"]
        .as_object()
        .ok_or_else(|| Error::Metadata {
            field: "features".to_owned(),
        })?;
    let mut features: Vec<String> = features
        .keys()
        .filter(|name| *name != "default")
        .cloned()
        .collect();
    features.sort();
    let dependencies = list(package, "dependencies")?
        .iter()
        .map(parse_dependency)
        .collect::<Result<_, _>>()?;
    let targets = list(package, "targets")?
        .iter()
        .map(parse_target)
        .collect::<Result<_, _>>()?;
    Ok(Package {
        name: text(package, "name")?,
        directory,
        features,
        dependencies,
        targets,
    })
}

fn parse_dependency(dependency: &Value) -> Result<Dependency, Error> {
    let kind = match dependency["kind"].as_str() {
        None => DependencyKind::Normal,
        Some("build") => DependencyKind::Build,
        Some("dev") => DependencyKind::Dev,
        Some(other) => {
            return Err(Error::Metadata {
                field: format!("dependency kind {other}"),
            });
        }
    };
    Ok(Dependency {
        name: text(dependency, "name")?,
        kind,
        optional: dependency["optional"].as_bool().unwrap_or(false),
    })
}

fn parse_target(target: &Value) -> Result<Target, Error> {
    let kinds = list(target, "kind")?;
    let kind = match kinds.first().and_then(Value::as_str) {
        Some("bin") => TargetKind::Binary,
        Some("example") => TargetKind::Example,
        Some("test") => TargetKind::Test,
        Some("bench") => TargetKind::Bench,
        Some("custom-build") => TargetKind::BuildScript,
        Some(_) => TargetKind::Library,
        None => {
            return Err(Error::Metadata {
                field: "target kind".to_owned(),
            });
        }
    };
    Ok(Target {
        name: text(target, "name")?,
        kind,
    })
}

fn text(value: &Value, field: &str) -> Result<String, Error> {
    value[field]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Metadata {
            field: field.to_owned(),
        })
}

fn list<'a>(value: &'a Value, field: &str) -> Result<&'a [Value], Error> {
    value[field]
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| Error::Metadata {
            field: field.to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_and_features_are_read() {
        let metadata = json!({
            "workspace_root": "/w",
            "packages": [{
                "name": "one",
                "manifest_path": "/w/crates/one/Cargo.toml",
                "features": {"default": [], "b": [], "a": []},
                "dependencies": [
                    {"name": "x", "kind": null, "optional": true},
                    {"name": "y", "kind": "dev", "optional": false},
                ],
                "targets": [{"name": "one", "kind": ["lib"]}, {"name": "t", "kind": ["test"]}],
            }],
        });
        let workspace = Workspace::parse(&metadata).unwrap();
        let one = workspace.package("one").unwrap();
        assert_eq!(one.directory, Path::new("crates/one"));
        assert_eq!(one.features, ["a", "b"]);
        assert_eq!(one.dependencies[1].kind, DependencyKind::Dev);
        assert!(one.dependencies[0].optional);
        assert!(one.has_target(TargetKind::Test, Some("t")));
        assert!(!one.has_target(TargetKind::Example, None));
        assert_eq!(workspace.crates().count(), 1);
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error() {
        let error = Workspace::parse(&json!({"workspace_root": "/w"})).unwrap_err();
        assert!(error.to_string().contains("packages"));
    }
}
