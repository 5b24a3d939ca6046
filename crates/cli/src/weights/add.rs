//! `stepwell weights add`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use weightstore::{Codec, ImportOptions, ImportReport, WeightStore};

use super::Location;
use super::model_file::{ModelFiles, default_name};
use crate::error::CliError;
use crate::quantity::{bytes, rate, speed};
use crate::report::Report;

/// What `weights add` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// Name of the model; the file's own without what says the format if it is left out.
    #[arg(long)]
    name: Option<String>,
    /// How new content is stored: auto (by type and content), none, gzip, gzip:LEVEL (1 to 9) or lz4.
    #[arg(long, default_value = "auto")]
    codec: Codec,
    /// The model that this one was made from; without it what is nearly the same is found by itself.
    #[arg(long, value_name = "MODEL")]
    base: Option<String>,
    /// Store every tensor alone, unless --base says otherwise.
    #[arg(long)]
    no_deltas: bool,
    /// Let a model of the same name with other content give way.
    #[arg(long)]
    replace: bool,
    /// Keep the SHA-256 of the whole file too, and compare it when the model is restored.
    #[arg(long)]
    sha256: bool,
    /// Model files: safetensors, `.npy`, `.npz`, PyTorch's zip files of a `state_dict`, or the indices of sharded models
    /// (`*.index.json`). What a file is shows in its content, not in its name.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// What `weights add` answers for each model.
#[derive(Debug, Serialize)]
struct Added {
    model: String,
    tensors: u64,
    new_tensors: u64,
    deduplicated_tensors: u64,
    delta_tensors: u64,
    logical_bytes: u64,
    stored_bytes: u64,
    converted_from: Option<&'static str>,
    skipped_values: u64,
    elapsed_s: f64,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let names = names_of(arguments)?;
    // Files that can't be used are refused before a store is made for them.
    let mut models = Vec::with_capacity(names.len());
    for path in &arguments.files {
        models.push(ModelFiles::open(path)?);
    }
    if let Some(first) = models.first() {
        first.check()?;
    }
    let store = arguments.location.open_or_make()?;
    for (name, model) in names.iter().zip(&models) {
        let started = Instant::now();
        let progress = report.progress(&format!("add {name}"));
        let on_progress = |done| progress.set(done);
        let mut options = ImportOptions::default()
            .with_codec(arguments.codec)
            .with_replace(arguments.replace)
            .with_file_sha256(arguments.sha256)
            .with_find_bases(!arguments.no_deltas)
            .with_progress(&on_progress);
        if let Some(base) = &arguments.base {
            options = options.with_base(base);
        }
        let added = model.add(&store, name, options)?;
        drop(progress);
        let answer = Added::new(added, model, started.elapsed().as_secs_f64());
        report.answer(&answer, || answer.text())?;
    }
    report.closed(store.close())
}

/// A name for each file; no two models of one call may have the same.
fn names_of(arguments: &Arguments) -> Result<Vec<String>, CliError> {
    let usage = |reason| Err(CliError::Usage { reason });
    if let Some(name) = &arguments.name {
        if arguments.files.len() > 1 {
            return usage("--name names one model, and there are several files".to_owned());
        }
        return Ok(vec![name.clone()]);
    }
    let mut names = Vec::with_capacity(arguments.files.len());
    let mut seen = BTreeSet::new();
    for path in &arguments.files {
        let Some(name) = default_name(path) else {
            let path = path.display();
            return usage(format!("{path} gives the model no name, pass --name"));
        };
        if !seen.insert(name.clone()) {
            return usage(format!("two of the files would be the model {name:?}"));
        }
        names.push(name);
    }
    Ok(names)
}

impl Added {
    fn new(report: ImportReport, model: &ModelFiles, elapsed_s: f64) -> Self {
        Self {
            model: report.model,
            tensors: report.tensors,
            new_tensors: report.new_tensors,
            deduplicated_tensors: report.deduplicated_tensors,
            delta_tensors: report.delta_tensors,
            logical_bytes: report.logical_bytes,
            stored_bytes: report.stored_bytes,
            converted_from: model.converted_from(),
            skipped_values: model.skipped_values(),
            elapsed_s,
        }
    }

    fn text(&self) -> String {
        let converted = match (self.converted_from, self.skipped_values) {
            (None, _) => String::new(),
            (Some(format), 0) => format!(", converted from {format}"),
            (Some(format), skipped) => {
                format!(", converted from {format} without {skipped} values that are no tensors")
            }
        };
        format!(
            "added {}: {} tensors ({} new, {} of them as deltas, {} deduplicated), {} stored for {}, {:.2} s, {}{converted}",
            self.model,
            self.tensors,
            self.new_tensors,
            self.delta_tensors,
            self.deduplicated_tensors,
            bytes(self.stored_bytes),
            bytes(self.logical_bytes),
            self.elapsed_s,
            speed(rate(self.logical_bytes, self.elapsed_s)),
        )
    }
}
