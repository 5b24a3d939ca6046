//! Runs the program and reads its answers.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// What a run answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    /// The only object on standard output.
    pub(crate) fn json(&self) -> Value {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{self:?}");
        lines[0].clone()
    }

    /// The objects on standard output.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap();
        self.stdout.lines().map(parse).collect()
    }

    /// The error of a run that must have failed, with its kind; never a panic.
    pub(crate) fn failed_with(&self, kind: &str) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        let error = self.lines().pop().unwrap()["error"].clone();
        assert_eq!(error["kind"], kind, "{self:?}");
        assert!(error["hint"].is_string(), "{self:?}");
        self.stderr.clone()
    }

    pub(crate) fn done(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        assert_eq!(self.stderr, "", "{self:?}");
        self
    }
}

/// Runs the program with these arguments.
pub(crate) fn stepwell<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepwell"));
    answer_of(command.args(arguments).output().unwrap())
}

pub(crate) fn answer_of(output: Output) -> Answer {
    Answer {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `stepwell --json weights COMMAND --store STORE ARGUMENTS`.
pub(crate) fn weights(command: &str, store: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Answer {
    on_store("weights", command, store, arguments)
}

/// Runs `stepwell --json store COMMAND --store STORE ARGUMENTS`.
pub(crate) fn values(command: &str, store: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Answer {
    on_store("store", command, store, arguments)
}

fn on_store(group: &str, command: &str, store: &Path, arguments: &[&dyn AsRef<OsStr>]) -> Answer {
    let mut all: Vec<&OsStr> = vec!["--json".as_ref(), group.as_ref(), command.as_ref()];
    all.extend(["--store".as_ref(), store.as_os_str()]);
    all.extend(arguments.iter().map(|argument| argument.as_ref()));
    stepwell(all)
}

/// The names of an object's fields.
pub(crate) fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    names.sort_unstable();
    names
}
