//! `stepwell weights show`.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use weightstore::{ModelFile, NativeStore};

use super::Location;
use crate::error::CliError;
use crate::quantity::{bytes, hex};
use crate::report::Report;
use crate::table::{printable, row, table};

/// What `weights show` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// The model.
    model: String,
}

/// What `weights show` answers.
#[derive(Debug, Serialize)]
struct Shown {
    model: String,
    content_hash: String,
    logical_bytes: u64,
    metadata: BTreeMap<String, String>,
    files: Vec<ShownFile>,
}

#[derive(Debug, Serialize)]
struct ShownFile {
    file: String,
    len_bytes: u64,
    sha256: Option<String>,
    metadata: BTreeMap<String, String>,
    tensors: Vec<ShownTensor>,
}

#[derive(Debug, Serialize)]
struct ShownTensor {
    tensor: String,
    dtype: String,
    shape: Vec<u64>,
    len_bytes: u64,
    stored_bytes: u64,
    hash: String,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let store = arguments.location.open_for_reading()?;
    let model = store.model(&arguments.model)?;
    let shown = Shown {
        model: model.name,
        content_hash: model.content_hash.to_string(),
        logical_bytes: model.files.iter().map(|file| file.len_bytes).sum(),
        metadata: model.metadata.into_iter().collect(),
        files: model
            .files
            .into_iter()
            .map(|file| shown_file(&store, file))
            .collect::<Result<_, _>>()?,
    };
    report.answer(&shown, || shown.text())
}

fn shown_file(store: &NativeStore, file: ModelFile) -> Result<ShownFile, CliError> {
    let mut tensors = Vec::with_capacity(file.tensors.len());
    for tensor in file.tensors {
        tensors.push(ShownTensor {
            stored_bytes: store.stored_bytes_of(&tensor.hash)?.unwrap_or(0),
            tensor: tensor.name,
            dtype: tensor.dtype.to_string(),
            shape: tensor.shape,
            len_bytes: tensor.len_bytes,
            hash: tensor.hash.to_string(),
        });
    }
    Ok(ShownFile {
        file: file.name,
        len_bytes: file.len_bytes,
        sha256: file.sha256.map(|sum| hex(&sum)),
        metadata: file.metadata.into_iter().collect(),
        tensors,
    })
}

impl Shown {
    fn text(&self) -> String {
        let mut text = format!(
            "{}: {}, content {}\n",
            self.model,
            bytes(self.logical_bytes),
            self.content_hash
        );
        for file in &self.files {
            text.push_str(&format!(
                "\n{} ({})\n",
                printable(&file.file),
                bytes(file.len_bytes)
            ));
            for (key, value) in &file.metadata {
                text.push_str(&format!("  {} = {}\n", printable(key), printable(value)));
            }
            let mut rows = vec![row(["tensor", "dtype", "shape", "bytes", "stored", "hash"])];
            rows.extend(file.tensors.iter().map(|tensor| {
                vec![
                    tensor.tensor.clone(),
                    tensor.dtype.clone(),
                    format!("{:?}", tensor.shape),
                    tensor.len_bytes.to_string(),
                    tensor.stored_bytes.to_string(),
                    tensor.hash.clone(),
                ]
            }));
            text.push_str(&table(&rows, &[3, 4]));
        }
        text
    }
}
