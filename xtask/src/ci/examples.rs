//! The examples of each crate.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::command::{Echo, Invocation};
use crate::error::Error;
use crate::feature_sets;
use crate::report::{Context, Outcome};
use crate::workspace::TargetKind;

/// An example that takes longer is no example.
const LIMIT: Duration = Duration::from_secs(60);

/// Builds all examples, then runs each in an empty directory of its own.
pub(crate) fn run(context: &Context<'_>) -> Result<Outcome, Error> {
    let expected: usize = context
        .workspace
        .packages
        .iter()
        .flat_map(|package| &package.targets)
        .filter(|target| target.kind == TargetKind::Example)
        .count();
    if expected == 0 {
        return Ok(Outcome::Skipped("no crate has examples yet".to_owned()));
    }
    let built = Invocation::cargo()
        .args([
            "build",
            "--examples",
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(feature_sets::workspace_run(context.workspace))
        .echo(Echo::Nothing)
        .run(&context.shell)?;
    if !built.success {
        for line in built.lines.iter().filter(|line| !line.starts_with('{')) {
            println!("      {line}");
        }
        return Ok(Outcome::Failed(format!(
            "the examples do not build: {}",
            built.ending()
        )));
    }
    let programs = programs(&built.lines);
    let mut failures = Vec::new();
    if programs.len() < expected {
        failures.push(format!(
            "{} of {expected} examples were not built; is one behind a feature that no run has?",
            expected - programs.len()
        ));
    }
    for (name, program) in &programs {
        let directory = context.shell.root.join("target/xtask/examples").join(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory).map_err(Error::file("remove", &directory))?;
        }
        std::fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        let finished = Invocation::new(program)
            .directory(&directory)
            .limit(LIMIT)
            .echo(Echo::Nothing)
            .run(&context.shell)?;
        if !finished.success {
            println!("    example {name}:");
            for line in &finished.lines {
                println!("      {line}");
            }
            failures.push(format!("{name}: {}", finished.ending()));
        }
    }
    Ok(Outcome::unless(
        &failures,
        format!("{} examples", programs.len()),
    ))
}

/// Name and path of each example among cargo's messages.
fn programs(messages: &[String]) -> Vec<(String, PathBuf)> {
    messages
        .iter()
        .filter_map(|message| serde_json::from_str::<Value>(message).ok())
        .filter(|message| {
            message["reason"] == "compiler-artifact" && message["target"]["kind"][0] == "example"
        })
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, PathBuf::from(message["executable"].as_str()?)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_example_programs_are_taken() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"a"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"kind":["example"],"name":"tour"},"executable":"/t/tour"}"#,
            "warning: something",
            r#"{"reason":"build-finished","success":true}"#,
        ]
        .map(str::to_owned);
        assert_eq!(
            programs(&messages),
            [("tour".to_owned(), PathBuf::from("/t/tour"))]
        );
    }
}
