//! `stepwell weights import-h5`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use weightstore::{
    Codec, CoralFile, CoralModel, ImportOptions, ImportReport, SourceFile, WeightError, WeightStore,
};

use super::Location;
use super::export_h5::ATTRIBUTES_FACT;
use super::model_file::{FORMAT_FACT, default_name};
use crate::error::CliError;
use crate::file_source::FileSource;
use crate::quantity::{bytes, rate, speed};
use crate::report::Report;

/// What a model that came from Coral says of its format.
const FORMAT: &str = "Coral HDF5";

/// What `weights import-h5` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// Name of the model; the file's own without what says the format if it is left out.
    #[arg(long)]
    name: Option<String>,
    /// Take only the tensors whose model has this name in the file.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// How new content is stored: auto (by type and content), none, gzip, gzip:LEVEL (1 to 9) or lz4.
    #[arg(long, default_value = "auto")]
    codec: Codec,
    /// Let a model of the same name with other content give way.
    #[arg(long)]
    replace: bool,
    /// A file that Coral, or export-h5, wrote.
    file: PathBuf,
}

/// What `weights import-h5` answers.
#[derive(Debug, Serialize)]
struct Imported {
    model: String,
    tensors: u64,
    new_tensors: u64,
    deduplicated_tensors: u64,
    delta_tensors: u64,
    file_bytes: u64,
    logical_bytes: u64,
    stored_bytes: u64,
    deltas: Vec<DecodedDelta>,
    skipped: Vec<Skipped>,
    elapsed_s: f64,
}

/// A tensor that the file has as a delta.
#[derive(Debug, Serialize)]
struct DecodedDelta {
    tensor: String,
    key: String,
    kind: &'static str,
    lossless_in_coral: bool,
    exact: bool,
    elements: u64,
    changed_elements: u64,
    unknown_elements: u64,
}

/// A delta that no tensor can be made of.
#[derive(Debug, Serialize)]
struct Skipped {
    key: String,
    reason: String,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let started = Instant::now();
    let name = match arguments
        .name
        .clone()
        .or_else(|| default_name(&arguments.file))
    {
        Some(name) => name,
        None => {
            let path = arguments.file.display();
            let reason = format!("{path} gives the model no name, pass --name");
            return Err(CliError::Usage { reason });
        }
    };
    let source = FileSource::open(&arguments.file)?;
    let file = CoralFile::open(source.name().to_owned(), Arc::new(source))?;
    let file_bytes = file.len_bytes();
    let model = CoralModel::new(Arc::new(file), arguments.model.as_deref());
    let model = model.map_err(|error| match error {
        WeightError::ModelNotFound { name } => CliError::NoTensorsOf {
            path: arguments.file.display().to_string(),
            model: name,
        },
        error => error.into(),
    })?;
    let store = arguments.location.open_or_make()?;
    let progress = report.progress(&format!("import {name}"));
    let on_progress = |done| progress.set(done);
    let options = ImportOptions::default()
        .with_codec(arguments.codec)
        .with_replace(arguments.replace)
        .with_metadata(FORMAT_FACT, FORMAT)
        .with_metadata(ATTRIBUTES_FACT, model.attributes())
        .with_progress(&on_progress);
    let file_name = format!("{}.safetensors", plain(&name));
    let source = SourceFile {
        name: &file_name,
        source: &model,
    };
    let imported = store.add_model(&name, source, &options)?;
    drop(progress);
    report.closed(store.close())?;
    let answer = Imported::new(
        imported,
        &model,
        file_bytes,
        started.elapsed().as_secs_f64(),
    )?;
    report.answer(&answer, || answer.text())
}

/// A model's name as that of a file.
fn plain(name: &str) -> String {
    name.replace(['/', '\\'], "_")
}

impl Imported {
    fn new(
        report: ImportReport,
        model: &CoralModel,
        file_bytes: u64,
        elapsed_s: f64,
    ) -> Result<Self, CliError> {
        let mut deltas = Vec::new();
        for (index, tensor) in model.tensors().iter().enumerate() {
            let (Some(kind), Some(fidelity)) = (tensor.delta, model.fidelity(index)?) else {
                continue;
            };
            deltas.push(DecodedDelta {
                tensor: tensor.name.clone(),
                key: tensor.key.clone(),
                kind: kind.name(),
                lossless_in_coral: !fidelity.lossy,
                exact: fidelity.is_exact(),
                elements: fidelity.elements,
                changed_elements: fidelity.changed,
                unknown_elements: fidelity.unknown,
            });
        }
        let skipped = model.skipped().iter().map(|skipped| Skipped {
            key: skipped.key.clone(),
            reason: skipped.reason.clone(),
        });
        Ok(Self {
            model: report.model,
            tensors: report.tensors,
            new_tensors: report.new_tensors,
            deduplicated_tensors: report.deduplicated_tensors,
            delta_tensors: report.delta_tensors,
            file_bytes,
            logical_bytes: report.logical_bytes,
            stored_bytes: report.stored_bytes,
            deltas,
            skipped: skipped.collect(),
            elapsed_s,
        })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "imported {}: {} tensors ({} new, {} of them as deltas, {} deduplicated), {} stored for {}, the file had {}, {:.2} s, {}\n",
            self.model,
            self.tensors,
            self.new_tensors,
            self.delta_tensors,
            self.deduplicated_tensors,
            bytes(self.stored_bytes),
            bytes(self.logical_bytes),
            bytes(self.file_bytes),
            self.elapsed_s,
            speed(rate(self.logical_bytes, self.elapsed_s)),
        );
        for delta in &self.deltas {
            text.push_str(&delta.text());
        }
        for skipped in &self.skipped {
            text.push_str(&format!(
                "  delta {}: left out, {}\n",
                skipped.key, skipped.reason
            ));
        }
        text
    }
}

impl DecodedDelta {
    fn text(&self) -> String {
        let verdict = match (self.lossless_in_coral, self.exact) {
            (false, _) => "lossy, as Coral says".to_owned(),
            (true, true) => "exact".to_owned(),
            (true, false) => format!(
                "not exact, though Coral calls it lossless: of {} elements {} are not what was stored, and of {} it can't be known",
                self.elements, self.changed_elements, self.unknown_elements
            ),
        };
        format!("  {} ({}): {verdict}\n", self.tensor, self.kind)
    }
}
