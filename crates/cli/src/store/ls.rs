//! `stepwell store ls`.

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;

use super::key::{KeyForm, KeyObject, shown};
use super::location::Location;
use crate::error::CliError;
use crate::report::Report;

/// What `store ls` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    #[command(flatten)]
    form: KeyForm,
    /// List only the keys that begin with this.
    #[arg(default_value = "")]
    prefix: OsString,
    /// Show the length of each value too.
    #[arg(short, long)]
    long: bool,
}

/// What `store ls` answers for each key.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    key: KeyObject,
    len_bytes: u64,
    #[serde(skip)]
    shown: String,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let prefix = arguments.form.parse(&arguments.prefix)?;
    let store = arguments.location.open_for_reading()?;
    let keys = store.keys_with_prefix(&prefix).into_iter();
    // Nobody changes a store that is read; a key without a length would be one removed meanwhile.
    let listed = keys.filter_map(|key| {
        let len_bytes = store.len_of(&key)?;
        Some(Ok(Listed {
            key: KeyObject::new(&key),
            len_bytes,
            shown: shown(&key),
        }))
    });
    report.answers(listed, |listed| match arguments.long {
        true => format!("{:>12}  {}", listed.len_bytes, listed.shown),
        false => listed.shown.clone(),
    })
}
