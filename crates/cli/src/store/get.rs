//! `stepwell store get`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use super::key::{KeyForm, KeyObject, shown};
use super::location::Location;
use super::value::STANDARD_INPUT as STANDARD_OUTPUT;
use crate::error::CliError;
use crate::quantity::{bytes, rate, speed};
use crate::report::Report;
use crate::target::Target;

/// What `store get` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    #[command(flatten)]
    form: KeyForm,
    /// The key.
    key: OsString,
    /// The file to write; `-` for standard output.
    #[arg(short, long, value_name = "PATH", default_value = STANDARD_OUTPUT)]
    output: PathBuf,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
}

/// What `store get` answers when it wrote a file.
#[derive(Debug, Serialize)]
struct Written {
    #[serde(flatten)]
    key: KeyObject,
    path: String,
    len_bytes: u64,
    elapsed_s: f64,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let to_output = arguments.output.as_os_str() == STANDARD_OUTPUT;
    if to_output && report.is_json() {
        let reason = "standard output can't take the value and JSON, pass -o PATH".to_owned();
        return Err(CliError::Usage { reason });
    }
    let key = arguments.form.parse(&arguments.key)?;
    let started = Instant::now();
    let store = arguments.location.open_for_reading()?;
    // The name is refused before a long value is read for it.
    let target = match to_output {
        true => None,
        false => Some(Target::open(&arguments.output, arguments.force)?),
    };
    let value = store.read_direct(&key)?;
    let value = value.ok_or_else(|| CliError::KeyNotFound { key: shown(&key) })?;
    let Some(mut target) = target else {
        let mut output = io::stdout().lock();
        return output
            .write_all(&value)
            .and_then(|()| output.flush())
            .map_err(|source| CliError::Output { source });
    };
    target
        .write_all(&value)
        .map_err(|source| CliError::file("write", &arguments.output, source))?;
    target.publish()?;
    let answer = Written {
        key: KeyObject::new(&key),
        path: arguments.output.display().to_string(),
        len_bytes: value.len() as u64,
        elapsed_s: started.elapsed().as_secs_f64(),
    };
    report.answer(&answer, || {
        format!(
            "wrote {} to {}: {}, verified, {:.2} s, {}",
            shown(&key),
            answer.path,
            bytes(answer.len_bytes),
            answer.elapsed_s,
            speed(rate(answer.len_bytes, answer.elapsed_s)),
        )
    })
}
