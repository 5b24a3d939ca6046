//! `stepwell weights verify`.

use clap::Args;
use serde::Serialize;
use tier_nvme::NvmeError;
use weightstore::{VerifyOptions, VerifyReport, WeightError, WeightHash};

use super::Location;
use crate::error::CliError;
use crate::quantity::parse_bytes;
use crate::report::Report;

/// What `weights verify` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// Check no more than this in a second, such as 200MiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_rate: Option<u64>,
    /// Stop after this much, such as 10GiB, and say where to go on.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    max_bytes: Option<u64>,
    /// Go on after this tensor, where another run has stopped.
    #[arg(long, value_name = "HASH")]
    after: Option<WeightHash>,
}

/// What `weights verify` answers.
#[derive(Debug, Serialize)]
struct Verified {
    checked: u64,
    checked_bytes: u64,
    /// Chunks of unfinished imports; `gc` removes them.
    unreachable: u64,
    /// Where to go on, if not everything was checked.
    stopped_at: Option<String>,
    corrupt: Vec<DamagedItem>,
}

#[derive(Debug, Serialize)]
struct DamagedItem {
    kind: &'static str,
    name: String,
    models: Vec<String>,
    reason: String,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let store = match arguments.location.open_for_reading() {
        Ok(store) => store,
        Err(error) => {
            // Damage so deep that the store can't be opened is what verify is asked for.
            let item = structure_at_fault(&error).ok_or(error)?;
            let verified = Verified {
                checked: 1,
                checked_bytes: 0,
                unreachable: 0,
                stopped_at: None,
                corrupt: vec![item],
            };
            return conclude(report, &verified, "");
        }
    };
    let progress = report.progress("verify");
    let on_progress = |done| progress.set(done);
    let mut options = VerifyOptions::default()
        .with_progress(&on_progress)
        .with_bytes_per_second_max(arguments.max_rate)
        .with_bytes_max(arguments.max_bytes);
    if let Some(after) = arguments.after {
        options = options.with_start_after(after);
    }
    let found = store.verify_with(&options)?;
    drop(progress);
    let rest = rest_text(&found);
    let corrupt = found.corrupt.into_iter().map(|damage| DamagedItem {
        kind: damage.kind.name(),
        name: damage.name,
        models: damage.models,
        reason: damage.reason,
    });
    let verified = Verified {
        checked: found.checked,
        checked_bytes: found.checked_bytes,
        unreachable: found.unreachable,
        stopped_at: found.stopped_at.map(|tensor| tensor.to_string()),
        corrupt: corrupt.collect(),
    };
    conclude(report, &verified, &rest)
}

/// Prints what was found; damage is a failure.
fn conclude(report: &Report, verified: &Verified, rest: &str) -> Result<(), CliError> {
    report.answer(verified, || verified.text(rest))?;
    match verified.corrupt.len() {
        0 => Ok(()),
        count => Err(CliError::Damaged {
            count,
            checked: verified.checked,
            remedy: "remove the models that are named, then add them again from a copy",
        }),
    }
}

fn rest_text(found: &VerifyReport) -> String {
    if let Some(tensor) = found.stopped_at {
        return format!("; the rest is checked by --after {tensor}");
    }
    match found.unreachable {
        0 => String::new(),
        count => format!(", {count} chunks that nothing reaches (harmless; gc removes them)"),
    }
}

/// The structure whose damage keeps the store from being opened.
fn structure_at_fault(error: &CliError) -> Option<DamagedItem> {
    let item = |name: String, reason: &str| DamagedItem {
        kind: "structure",
        name,
        models: Vec::new(),
        reason: reason.to_owned(),
    };
    let of_storage = |error: &NvmeError| match error {
        NvmeError::Corrupt {
            structure,
            location,
            reason,
        } => Some(item(format!("{structure} {location}"), reason)),
        _ => None,
    };
    match error {
        CliError::Storage(error) => of_storage(error),
        CliError::Weights(WeightError::Corrupt {
            structure,
            name,
            reason,
        }) => Some(item(
            format!("{structure} {name}").trim_end().to_owned(),
            reason,
        )),
        CliError::Weights(WeightError::Storage { source, .. }) => {
            source.downcast_ref::<NvmeError>().and_then(of_storage)
        }
        _ => None,
    }
}

impl Verified {
    fn text(&self, rest: &str) -> String {
        let mut text = format!(
            "checked {}: {} damaged{rest}\n",
            self.checked,
            self.corrupt.len()
        );
        for item in &self.corrupt {
            text.push_str(&format!("{} {}: {}\n", item.kind, item.name, item.reason));
            for user in &item.models {
                text.push_str(&format!("  needed by {user}\n"));
            }
        }
        text
    }
}
