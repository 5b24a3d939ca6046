//! `stepwell weights ls`.

use clap::Args;
use serde::Serialize;

use super::Location;
use crate::error::CliError;
use crate::quantity::bytes;
use crate::report::Report;
use crate::table::{row, table};

/// What `weights ls` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
}

/// What `weights ls` answers.
#[derive(Debug, Serialize)]
struct Listing {
    models: Vec<Listed>,
}

#[derive(Debug, Serialize)]
struct Listed {
    model: String,
    files: usize,
    tensors: usize,
    logical_bytes: u64,
    content_hash: String,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let store = arguments.location.open_for_reading()?;
    let mut models = Vec::new();
    for name in store.models()? {
        let model = store.model(&name)?;
        models.push(Listed {
            model: model.name,
            files: model.files.len(),
            tensors: model.files.iter().map(|file| file.tensors.len()).sum(),
            logical_bytes: model.files.iter().map(|file| file.len_bytes).sum(),
            content_hash: model.content_hash.to_string(),
        });
    }
    let listing = Listing { models };
    report.answer(&listing, || listing.text())
}

impl Listing {
    fn text(&self) -> String {
        if self.models.is_empty() {
            return "no models".to_owned();
        }
        let mut rows = vec![row(["model", "files", "tensors", "size"])];
        rows.extend(self.models.iter().map(|model| {
            vec![
                model.model.clone(),
                model.files.to_string(),
                model.tensors.to_string(),
                bytes(model.logical_bytes),
            ]
        }));
        table(&rows, &[1, 2, 3])
    }
}
