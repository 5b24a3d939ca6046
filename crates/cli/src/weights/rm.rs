//! `stepwell weights rm`.

use clap::Args;
use serde::Serialize;
use weightstore::WeightStore;

use super::Location;
use crate::error::CliError;
use crate::report::Report;

/// What `weights rm` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// The model.
    model: String,
}

/// What `weights rm` answers.
#[derive(Debug, Serialize)]
struct Removed {
    model: String,
    removed_tensors: u64,
    kept_tensors: u64,
    /// Damaged records that might need tensors, so that these had to stay.
    unreadable: Vec<String>,
    /// Why tensors that nothing needs are still there.
    unreclaimed: Option<String>,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let store = arguments.location.open()?;
    let removal = store.remove_model(&arguments.model)?;
    let removed = Removed {
        model: removal.model,
        removed_tensors: removal.removed_tensors,
        kept_tensors: removal.kept_tensors,
        unreadable: removal.unreadable,
        unreclaimed: removal.unreclaimed,
    };
    report.answer(&removed, || match &removed.unreclaimed {
        None => format!(
            "removed {}: {} tensors went, {} are needed elsewhere",
            removed.model, removed.removed_tensors, removed.kept_tensors
        ),
        Some(why) => format!(
            "removed {}; its tensors are left to `stepwell weights gc`: {why}",
            removed.model
        ),
    })?;
    report.closed(store.close())
}
