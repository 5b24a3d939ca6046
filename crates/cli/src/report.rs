//! What goes to standard output and standard error.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::error::CliError;
use crate::progress::ProgressLine;

/// Where answers go, as people or programs read them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Report {
    json: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints an answer: one line of JSON, or the text. It is out when this returns.
    pub(crate) fn answer(
        &self,
        object: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        let output = |source| CliError::Output { source };
        if self.json {
            let line = serde_json::to_string(object).map_err(|error| output(error.into()))?;
            print(&line).map_err(output)
        } else {
            print(text().trim_end()).map_err(output)
        }
    }

    /// Prints answers that may be many; they are out when this returns.
    pub(crate) fn answers<T: Serialize>(
        &self,
        answers: impl Iterator<Item = Result<T, CliError>>,
        text: impl Fn(&T) -> String,
    ) -> Result<(), CliError> {
        let output = |source| CliError::Output { source };
        let mut stream = BufWriter::new(io::stdout().lock());
        for answer in answers {
            let answer = answer?;
            if self.json {
                serde_json::to_writer(&mut stream, &answer)
                    .map_err(|error| output(error.into()))?;
            } else {
                stream.write_all(text(&answer).as_bytes()).map_err(output)?;
            }
            stream.write_all(b"\n").map_err(output)?;
        }
        stream.flush().map_err(output)
    }

    /// Whether answers are objects.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Says on standard error what is being done, where people read.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            // A note that can't be written is no reason to stop.
            drop(writeln!(io::stderr(), "{text}"));
        }
    }

    /// The outcome of closing a store in which all was done: that is durable without it, which only makes the next opening quick. So a disk
    /// that is full by then is no failure of the command.
    pub(crate) fn closed<E: Into<CliError>>(&self, outcome: Result<(), E>) -> Result<(), CliError> {
        let outcome = outcome.map_err(Into::into);
        match outcome {
            Err(error) if error.kind() == "no_space" => {
                let (message, _) = error.sentence();
                self.note(&format!("done; the next opening takes longer: {message}"));
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// A line that shows how far a long operation has come.
    pub(crate) fn progress(&self, what: &str) -> ProgressLine {
        ProgressLine::new(what, !self.json)
    }

    /// Says why the command failed.
    pub(crate) fn failure(&self, error: &CliError) {
        if error.is_closed_pipe() {
            return;
        }
        let (message, hint) = error.sentence();
        let hint = hint.map_or_else(String::new, |hint| format!("; {hint}"));
        // Nothing is left to tell it to if this can't be written.
        drop(writeln!(io::stderr(), "error: {message}{hint}"));
        if self.json && !error.is_reported() {
            self.failure_object(error);
        }
    }

    /// Prints the failure as an object of its own.
    pub(crate) fn failure_object(&self, error: &CliError) {
        if let Ok(line) = serde_json::to_string(&error.object()) {
            drop(print(&line));
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.write_all(b"\n")?;
    output.flush()
}
