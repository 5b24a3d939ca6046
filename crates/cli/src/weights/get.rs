//! `stepwell weights get`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde::Serialize;
use weightstore::{ExportOptions, ExportReport, ModelInfo, NativeStore};

use super::Location;
use super::model_file::INDEX_FACT;

use crate::error::CliError;
use crate::quantity::{bytes, hex, rate, speed};
use crate::report::Report;
use crate::target::Target;

/// What `weights get` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// The file to write; for a model of several files the directory, unless --file names one.
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// One file of a model of several.
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
    /// The model.
    model: String,
}

/// What `weights get` answers.
#[derive(Debug, Serialize)]
struct Restored {
    model: String,
    files: Vec<RestoredFile>,
    len_bytes: u64,
    elapsed_s: f64,
}

#[derive(Debug, Serialize)]
struct RestoredFile {
    file: String,
    path: String,
    tensors: u64,
    len_bytes: u64,
    sha256: Option<String>,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let started = Instant::now();
    let store = arguments.location.open_for_reading()?;
    let model = store.model(&arguments.model)?;
    let alone = model.files.len() == 1 && model.index.is_none();
    let files = if alone || arguments.file.is_some() {
        let file = arguments.file.as_deref();
        let target = Target::open(&arguments.output, arguments.force)?;
        let restored = restore(report, &store, &model.name, file, target)?;
        vec![RestoredFile::new(restored, &arguments.output)]
    } else {
        restore_all(report, &store, &model, arguments)?
    };
    let answer = Restored {
        model: model.name,
        len_bytes: files.iter().map(|file| file.len_bytes).sum(),
        files,
        elapsed_s: started.elapsed().as_secs_f64(),
    };
    report.answer(&answer, || answer.text())
}

/// Restores every file of a model of several, and its index.
fn restore_all(
    report: &Report,
    store: &NativeStore,
    model: &ModelInfo,
    arguments: &Arguments,
) -> Result<Vec<RestoredFile>, CliError> {
    let directory = &arguments.output;
    std::fs::create_dir_all(directory)
        .map_err(|source| CliError::file("make the directory", directory, source))?;
    let open = |name: &str| Target::open(&directory.join(name), arguments.force);
    // All of them are opened first: one that is there already stops the command before it has begun.
    let index_name = index_name(model);
    let index = index_name.map(open).transpose()?;
    let mut targets = Vec::with_capacity(model.files.len());
    for file in &model.files {
        targets.push(open(&file.name)?);
    }
    let mut files = Vec::with_capacity(targets.len());
    for (file, target) in model.files.iter().zip(targets) {
        let path = directory.join(&file.name);
        let restored = restore(report, store, &model.name, Some(&file.name), target)?;
        files.push(RestoredFile::new(restored, &path));
    }
    if let (Some(mut target), Some(text)) = (index, &model.index) {
        let failed = |source| CliError::file("write the index in", directory, source);
        target.write_all(text.as_bytes()).map_err(failed)?;
        target.publish()?;
    }
    Ok(files)
}

/// The name of the index file, where the model has one that names no other place.
fn index_name(model: &ModelInfo) -> Option<&str> {
    model.index.as_ref()?;
    let fact = model.metadata.iter().find(|(key, _)| key == INDEX_FACT);
    let name = fact.map(|(_, name)| name.as_str());
    let plain = |name: &&str| Path::new(name).file_name() == Some(name.as_ref());
    Some(name.filter(plain).unwrap_or("model.safetensors.index.json"))
}

/// Writes a file of a model, verified, to a target, and publishes it.
pub(crate) fn restore(
    report: &Report,
    store: &NativeStore,
    model: &str,
    file: Option<&str>,
    mut target: Target,
) -> Result<ExportReport, CliError> {
    let progress = report.progress(&format!("get {model}"));
    let on_progress = |done| progress.set(done);
    let mut options = ExportOptions::default().with_progress(&on_progress);
    if let Some(file) = file {
        options = options.with_file(file);
    }
    let restored = store.export_model(model, &mut target, &options)?;
    target.publish()?;
    Ok(restored)
}

impl RestoredFile {
    fn new(restored: ExportReport, path: &Path) -> Self {
        Self {
            file: restored.file,
            path: path.display().to_string(),
            tensors: restored.tensors,
            len_bytes: restored.len_bytes,
            sha256: restored.sha256.map(|sum| hex(&sum)),
        }
    }
}

impl Restored {
    fn text(&self) -> String {
        let paths: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        format!(
            "restored {} to {}: {}, verified, {:.2} s, {}",
            self.model,
            paths.join(", "),
            bytes(self.len_bytes),
            self.elapsed_s,
            speed(rate(self.len_bytes, self.elapsed_s)),
        )
    }
}
