//! What the program says of a store with a flipped bit.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Something that `verify` names.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) models: Vec<String>,
}

/// What became of the flip.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// `verify` named this, and no model came back changed.
    Named(Vec<Item>),
    /// Every answer is as before.
    Unchanged,
}

/// The answers of an undamaged store.
#[derive(Debug)]
pub(crate) struct Answers(Vec<(i32, String)>);

impl Answers {
    /// Asks everything that has a fixed answer.
    pub(crate) fn of(store: &Path, models: &[(&str, Vec<u8>)]) -> Self {
        let mut answers = Vec::new();
        for command in ["ls", "stats", "verify"] {
            answers.push(taken(&stepwell(command, store, &[])));
        }
        for (model, _) in models {
            answers.push(taken(&stepwell("show", store, &[model])));
        }
        Self(answers)
    }
}

/// Asks the program about a damaged store.
pub(crate) fn examine(
    store: &Path,
    models: &[(&str, Vec<u8>)],
    whole: &Answers,
    context: &str,
) -> Outcome {
    let output = stepwell("verify", store, &[]);
    let (code, text) = taken(&output);
    let verified: Value = serde_json::from_str(&text).unwrap();
    let items: Vec<Item> = verified["corrupt"]
        .as_array()
        .unwrap_or_else(|| unreachable!("{context}: {text}"))
        .iter()
        .map(item)
        .collect();
    assert_eq!(code, i32::from(!items.is_empty()), "{context}: {text}");
    for (model, bytes) in models {
        restore(store, model, bytes, items.is_empty(), context);
    }
    if !items.is_empty() {
        return Outcome::Named(items);
    }
    let answers = Answers::of(store, models);
    assert_eq!(answers.0, whole.0, "{context}");
    Outcome::Unchanged
}

/// Restores a model: its bytes, or an error and no file.
fn restore(store: &Path, model: &str, bytes: &[u8], must: bool, context: &str) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    let output = stepwell("get", store, &[model, "-o", target.to_str().unwrap()]);
    let (code, text) = taken(&output);
    if code == 0 {
        assert!(
            std::fs::read(&target).unwrap() == bytes,
            "{context}: {model} came back changed"
        );
    } else {
        assert!(!must, "{context}: verify saw nothing, get said {text}");
        assert!(!target.exists(), "{context}: {text}");
    }
}

fn item(value: &Value) -> Item {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let item = Item {
        kind: text(&value["kind"]),
        name: text(&value["name"]),
        models: value["models"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect(),
    };
    assert!(
        !item.name.is_empty() && !text(&value["reason"]).is_empty(),
        "{value}"
    );
    item
}

pub(crate) fn stepwell(command: &str, store: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stepwell"))
        .args(["--json", "weights", command, "--store"])
        .arg(store)
        .args(arguments)
        .output()
        .unwrap()
}

/// The exit code and the answer of a run that did not panic.
fn taken(output: &Output) -> (i32, String) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!stderr.contains("panicked"), "{stderr}");
    let code = output.status.code().unwrap();
    assert!((0..=1).contains(&code), "{code}: {stderr}");
    (code, String::from_utf8(output.stdout.clone()).unwrap())
}
