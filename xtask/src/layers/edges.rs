//! Direct dependencies against the table.

use super::table::{Layer, Table};
use crate::workspace::{Dependency, DependencyKind, Package};

/// Everything about `packages` that contradicts `table`, each with what to do.
pub(super) fn violations(packages: &[Package], table: &Table) -> Vec<String> {
    let mut found = table_violations(packages, table);
    for package in packages {
        let Some(layer) = table.layers.iter().find(|layer| layer.name == package.name) else {
            found.push(format!(
                "{}: the crate has no row in the dependency table; add one to \
                 xtask/src/layers/table.rs and to the architecture document",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let is_member = packages.iter().any(|member| member.name == dependency.name);
            // A crate may name itself for its own tests, to switch on its test features.
            let is_itself = dependency.name == package.name;
            if is_member && !is_itself {
                found.extend(edge_violation(layer, dependency));
            }
            found.extend(heavy_violation(package, dependency, table));
        }
    }
    found
}

/// What is wrong with the table itself.
fn table_violations(packages: &[Package], table: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for layer in table.layers {
        if !packages.iter().any(|package| package.name == layer.name) {
            found.push(format!(
                "{}: the dependency table has a row for a crate that does not exist; remove it",
                layer.name
            ));
        }
        for target in layer.normal.iter().chain(layer.dev) {
            let below = table
                .layers
                .iter()
                .find(|other| other.name == *target)
                .is_some_and(|other| other.level < layer.level);
            if !below {
                found.push(format!(
                    "{} -> {target}: the dependency table allows an edge that does not lead \
                     downward; correct the levels or remove it",
                    layer.name
                ));
            }
        }
    }
    found
}

fn edge_violation(layer: &Layer, dependency: &Dependency) -> Option<String> {
    let target = dependency.name.as_str();
    let normal = layer.normal.contains(&target);
    let allowed = match dependency.kind {
        DependencyKind::Normal | DependencyKind::Build => normal,
        DependencyKind::Dev => normal || layer.dev.contains(&target),
    };
    if !allowed {
        let hint = if layer.dev.contains(&target) {
            "the table allows it for tests only; take the concrete type in as `dyn`"
        } else {
            "let the lower crate own a trait that the upper one implements"
        };
        return Some(format!(
            "{} -> {target} ({}): the edge is not in the dependency table; {hint}",
            layer.name,
            kind_name(dependency.kind)
        ));
    }
    let must_be_optional =
        dependency.kind != DependencyKind::Dev && layer.optional.contains(&target);
    (must_be_optional && !dependency.optional).then(|| {
        format!(
            "{} -> {target}: the edge must be optional; put it behind a feature",
            layer.name
        )
    })
}

fn heavy_violation(package: &Package, dependency: &Dependency, table: &Table) -> Option<String> {
    let heavy = table
        .heavy
        .iter()
        .find(|heavy| heavy.name == dependency.name)?;
    (!heavy.owners.contains(&package.name.as_str())).then(|| {
        format!(
            "{} -> {} ({}): only {} may depend on it; go through that crate",
            package.name,
            dependency.name,
            kind_name(dependency.kind),
            heavy.owners.join(" and ")
        )
    })
}

fn kind_name(kind: DependencyKind) -> &'static str {
    match kind {
        DependencyKind::Normal => "normal",
        DependencyKind::Build => "build",
        DependencyKind::Dev => "dev",
    }
}

#[cfg(test)]
mod tests;
