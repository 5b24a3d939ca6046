//! `stepwell store rm`.

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;
use tier_nvme::{NvmeStore, WriteBatch};

use super::key::{KeyForm, shown};
use super::location::Location;
use crate::error::CliError;
use crate::report::Report;

/// Keys that one batch removes at most.
const BATCH_KEYS: usize = 4096;

/// What `store rm` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    #[command(flatten)]
    form: KeyForm,
    /// The keys; all of them go, or none if one is not there.
    #[arg(value_name = "KEY", required_unless_present = "prefix")]
    keys: Vec<OsString>,
    /// Remove every key that begins with this; what is removed when it fails stays removed.
    #[arg(long, value_name = "TEXT", conflicts_with = "keys")]
    prefix: Option<OsString>,
    /// Do not fail because of keys that are not there.
    #[arg(short, long)]
    force: bool,
}

/// What `store rm` answers.
#[derive(Debug, Serialize)]
struct Removed {
    removed_keys: u64,
    missing_keys: u64,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let parse = |text: &OsString| arguments.form.parse(text);
    let mut keys: Vec<Vec<u8>> = arguments.keys.iter().map(parse).collect::<Result<_, _>>()?;
    let prefix = arguments.prefix.as_ref().map(parse).transpose()?;
    let store = arguments.location.open()?;
    let mut missing_keys = 0;
    match prefix {
        Some(prefix) => keys = store.keys_with_prefix(&prefix),
        None => {
            keys.sort_unstable();
            keys.dedup();
            let named = keys.len();
            if !arguments.force {
                check(&store, &keys)?;
            }
            keys.retain(|key| store.contains(key));
            missing_keys = (named - keys.len()) as u64;
        }
    }
    let batch_keys = match arguments.prefix {
        Some(_) => BATCH_KEYS,
        None => keys.len().max(1),
    };
    let mut removed_keys = 0;
    for part in keys.chunks(batch_keys) {
        let batch = part
            .iter()
            .fold(WriteBatch::new(), |batch, key| batch.delete(key.as_slice()));
        store.write_batch(batch)?;
        removed_keys += part.len() as u64;
    }
    report.closed(store.close())?;
    let answer = Removed {
        removed_keys,
        missing_keys,
    };
    report.answer(&answer, || format!("removed {removed_keys} values"))
}

/// Refuses a key that is not there.
fn check(store: &NvmeStore, keys: &[Vec<u8>]) -> Result<(), CliError> {
    match keys.iter().find(|key| !store.contains(key)) {
        Some(key) => Err(CliError::KeyNotFound { key: shown(key) }),
        None => Ok(()),
    }
}
