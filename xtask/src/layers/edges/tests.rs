use std::path::PathBuf;

use super::super::table::TABLE;
use super::*;

/// Every crate of the table, with only the dependencies that it must have: none.
fn sound() -> Vec<Package> {
    TABLE
        .layers
        .iter()
        .map(|layer| Package {
            name: layer.name.to_owned(),
            directory: PathBuf::from("crates").join(layer.name),
            features: Vec::new(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        })
        .collect()
}

fn depend(packages: &mut [Package], from: &str, to: &str, kind: DependencyKind, optional: bool) {
    let package = packages
        .iter_mut()
        .find(|package| package.name == from)
        .unwrap();
    package.dependencies.push(Dependency {
        name: to.to_owned(),
        kind,
        optional,
    });
}

/// The violations after planting one edge.
fn planted(from: &str, to: &str, kind: DependencyKind, optional: bool) -> Vec<String> {
    let mut packages = sound();
    depend(&mut packages, from, to, kind, optional);
    violations(&packages, &TABLE)
}

#[test]
fn the_table_is_sound() {
    assert!(violations(&sound(), &TABLE).is_empty());
}

#[test]
fn edges_of_the_table_pass() {
    for (from, to, kind, optional) in [
        ("core-view", "core-alloc", DependencyKind::Normal, false),
        ("core-view", "core-alloc", DependencyKind::Dev, false),
        ("core-view", "core-view", DependencyKind::Dev, false),
        ("blockmgr", "tier-nvme", DependencyKind::Dev, false),
        ("s3-sync", "weightstore", DependencyKind::Normal, true),
        ("tier-nvme", "io-uring", DependencyKind::Normal, true),
        ("stepwell", "tokio", DependencyKind::Normal, false),
        ("xtask", "serde_json", DependencyKind::Normal, false),
    ] {
        assert!(
            planted(from, to, kind, optional).is_empty(),
            "{from} -> {to}"
        );
    }
}

#[test]
fn edges_outside_the_table_are_found() {
    for (from, to, kind, optional, said) in [
        (
            "core-alloc",
            "core-view",
            DependencyKind::Normal,
            false,
            "not in the dependency table",
        ),
        (
            "core-alloc",
            "core-view",
            DependencyKind::Dev,
            false,
            "not in the dependency table",
        ),
        (
            "core-alloc",
            "core-view",
            DependencyKind::Build,
            false,
            "(build)",
        ),
        (
            "blockmgr",
            "tier-nvme",
            DependencyKind::Normal,
            false,
            "for tests only",
        ),
        (
            "blockmgr",
            "tier-nvme",
            DependencyKind::Normal,
            true,
            "for tests only",
        ),
        (
            "weightstore",
            "graph-csr",
            DependencyKind::Normal,
            false,
            "not in the dependency table",
        ),
        (
            "xtask",
            "core-alloc",
            DependencyKind::Normal,
            false,
            "not in the dependency table",
        ),
        (
            "s3-sync",
            "weightstore",
            DependencyKind::Normal,
            false,
            "must be optional",
        ),
        (
            "weightstore",
            "io-uring",
            DependencyKind::Normal,
            true,
            "only tier-nvme and stepwell",
        ),
        (
            "core-view",
            "tokio",
            DependencyKind::Dev,
            false,
            "only s3-sync and stepwell",
        ),
        (
            "stepwell-benches",
            "cudarc",
            DependencyKind::Normal,
            false,
            "only tier-cuda",
        ),
    ] {
        let found = planted(from, to, kind, optional);
        assert_eq!(found.len(), 1, "{from} -> {to}: {found:?}");
        assert!(found[0].contains(said), "{}", found[0]);
    }
}

#[test]
fn a_crate_without_a_row_is_found() {
    let mut packages = sound();
    let mut stranger = packages[0].clone();
    stranger.name = "tier-tape".to_owned();
    packages.push(stranger);
    let found = violations(&packages, &TABLE);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("tier-tape: the crate has no row"),
        "{}",
        found[0]
    );
}

#[test]
fn a_row_without_a_crate_is_found() {
    let mut packages = sound();
    packages.retain(|package| package.name != "s3-sync");
    let found = violations(&packages, &TABLE);
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("s3-sync: the dependency table has a row"),
        "{}",
        found[0]
    );
}

#[test]
fn a_table_that_leads_upward_is_found() {
    const UPWARD: Table = Table {
        layers: &[
            Layer {
                name: "low",
                level: 0,
                normal: &[],
                dev: &["high"],
                optional: &[],
            },
            Layer {
                name: "high",
                level: 1,
                normal: &["low", "high"],
                dev: &[],
                optional: &[],
            },
        ],
        heavy: &[],
        absences: &[],
        feature_absences: &[],
    };
    let packages: Vec<Package> = ["low", "high"]
        .map(|name| Package {
            name: name.to_owned(),
            directory: PathBuf::from(name),
            features: Vec::new(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        })
        .to_vec();
    let found = violations(&packages, &UPWARD);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("low -> high"));
    assert!(found[1].starts_with("high -> high"));
}
