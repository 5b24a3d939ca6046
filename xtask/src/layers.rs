//! `cargo xtask layers`: dependencies point downward, and heavy ones stay with their owners.

mod closure;
mod edges;
mod table;

use crate::error::Error;
use crate::report::{Context, Outcome};

/// Checks the direct dependencies against the table and the closures against the heavy list.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let mut violations = edges::violations(&context.workspace.packages, &table::TABLE);
    let (closures, found) = closure::violations(context)?;
    violations.extend(found);
    for violation in &violations {
        println!("    {violation}");
    }
    let edges: usize = context
        .workspace
        .packages
        .iter()
        .map(|package| package.dependencies.len())
        .sum();
    Ok(match violations.len() {
        0 => Outcome::Passed(format!("{edges} direct dependencies, {closures} closures")),
        count => Outcome::Failed(format!("{count} violations, listed above")),
    })
}
