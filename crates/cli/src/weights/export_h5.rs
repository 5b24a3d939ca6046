//! `stepwell weights export-h5`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::{Deserialize, Serialize};
use weightstore::{
    CoralFileWriter, ExportOptions, Hdf5Compression, ModelFile, ModelInfo, WeightError,
    WeightTensor,
};

use super::Location;
use crate::error::CliError;
use crate::quantity::{bytes, parse_bytes, rate, speed};
use crate::report::Report;
use crate::target::Target;

/// The fact of a model that keeps what Coral said of its tensors.
pub(super) const ATTRIBUTES_FACT: &str = "coral.attributes";

/// What `weights export-h5` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// How the datasets are compressed: gzip, gzip:LEVEL (1 to 9), lzf or none.
    #[arg(long, default_value = "gzip")]
    compression: Hdf5Compression,
    /// Most bytes of tensors: they are in memory until the file is written, with what they are compressed to, twice.
    #[arg(long, value_name = "BYTES", default_value = "4GiB", value_parser = parse_bytes)]
    content_bytes_max: u64,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
    /// The model.
    model: String,
    /// The file to write.
    file: PathBuf,
}

/// What `weights export-h5` answers.
#[derive(Debug, Serialize)]
struct Exported {
    model: String,
    path: String,
    tensors: u64,
    deduplicated_tensors: u64,
    logical_bytes: u64,
    len_bytes: u64,
    elapsed_s: f64,
}

/// What Coral said of a tensor.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    layer_type: Option<String>,
    model_name: Option<String>,
    compression_info: Option<String>,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let started = Instant::now();
    let store = arguments.location.open_for_reading()?;
    let model = store.model(&arguments.model)?;
    let attributes = attributes_of(&model);
    let tensors = || model.files.iter().flat_map(|file| &file.tensors);
    let distinct: BTreeMap<_, _> = tensors()
        .map(|tensor| (tensor.hash, tensor.len_bytes))
        .collect();
    let limit_bytes = arguments.content_bytes_max;
    let found_bytes = distinct.values().sum();
    if found_bytes > limit_bytes {
        return Err(CliError::ContentTooLarge {
            model: model.name,
            found_bytes,
            limit_bytes,
        });
    }
    let mut target = Target::open(&arguments.file, arguments.force)?;
    let mut writer = CoralFileWriter::new(arguments.compression);
    let progress = report.progress(&format!("export {}", model.name));
    let on_progress = |done| progress.set(done);
    let mut added = 0;
    for file in &model.files {
        let options = ExportOptions::default()
            .with_file(&file.name)
            .with_progress(&on_progress);
        let mut splitter = Splitter::new(file, &model.name, &attributes, &mut writer);
        let exported = store.export_model(&model.name, &mut splitter, &options);
        if let Some(failure) = splitter.failure {
            return Err(failure.into());
        }
        exported?;
        added += splitter.added;
    }
    drop(progress);
    let len_bytes = writer.finish_to(&mut target)?;
    target.publish()?;
    let count = tensors().count() as u64;
    let answer = Exported {
        path: arguments.file.display().to_string(),
        tensors: count,
        deduplicated_tensors: count - added,
        logical_bytes: tensors().map(|tensor| tensor.len_bytes).sum(),
        model: model.name,
        len_bytes,
        elapsed_s: started.elapsed().as_secs_f64(),
    };
    report.answer(&answer, || answer.text())
}

/// What the import kept, where the model came from Coral.
fn attributes_of(model: &ModelInfo) -> BTreeMap<String, Attributes> {
    let kept = model
        .metadata
        .iter()
        .find(|(key, _)| key == ATTRIBUTES_FACT);
    // A model may carry a fact of this name that somebody else wrote; then nothing is known.
    kept.and_then(|(_, json)| serde_json::from_str(json).ok())
        .unwrap_or_default()
}

/// Takes a safetensors file apart as it is restored: each tensor goes to the writer when it is whole.
struct Splitter<'a> {
    file: &'a ModelFile,
    model: &'a str,
    attributes: &'a BTreeMap<String, Attributes>,
    writer: &'a mut CoralFileWriter,
    /// Bytes of the header that are still to come.
    header_bytes: u64,
    /// The tensor that is being filled.
    next: usize,
    content: Vec<u8>,
    added: u64,
    failure: Option<WeightError>,
}

impl<'a> Splitter<'a> {
    fn new(
        file: &'a ModelFile,
        model: &'a str,
        attributes: &'a BTreeMap<String, Attributes>,
        writer: &'a mut CoralFileWriter,
    ) -> Self {
        // The tensors tile what is behind the header, without holes.
        let data_bytes: u64 = file.tensors.iter().map(|tensor| tensor.len_bytes).sum();
        Self {
            file,
            model,
            attributes,
            writer,
            header_bytes: file.len_bytes.saturating_sub(data_bytes),
            next: 0,
            content: Vec::new(),
            added: 0,
            failure: None,
        }
    }

    /// Gives the writer every tensor that is whole.
    fn settle(&mut self) -> Result<(), WeightError> {
        while let Some(tensor) = self.file.tensors.get(self.next) {
            if self.header_bytes > 0 || self.content.len() as u64 != tensor.len_bytes {
                break;
            }
            let about = self.attributes.get(&tensor.name);
            let content = std::mem::take(&mut self.content);
            let mut weight =
                WeightTensor::new(&*tensor.name, tensor.dtype, &tensor.shape, content)?;
            let model_name = about.and_then(|about| about.model_name.as_deref());
            weight = weight.with_model_name(model_name.unwrap_or(self.model));
            if let Some(layer_type) = about.and_then(|about| about.layer_type.as_deref()) {
                weight = weight.with_layer_type(layer_type);
            }
            if let Some(json) = about.and_then(|about| about.compression_info.as_deref()) {
                weight = weight.with_compression_info(json);
            }
            self.added += u64::from(self.writer.add(&weight)?);
            self.next += 1;
        }
        Ok(())
    }

    fn take<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], WeightError> {
        if self.header_bytes > 0 {
            let len = bytes.len().min(self.header_bytes as usize);
            self.header_bytes -= len as u64;
            self.settle()?;
            return Ok(bytes.get(len..).unwrap_or_default());
        }
        let wanted = self.file.tensors.get(self.next);
        let missing = wanted.map_or(0, |tensor| tensor.len_bytes) - self.content.len() as u64;
        let (taken, rest) = bytes.split_at(bytes.len().min(missing as usize));
        self.content.extend_from_slice(taken);
        self.settle()?;
        Ok(rest)
    }
}

impl Write for Splitter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.header_bytes == 0 && self.next == self.file.tensors.len() {
                return Err(io::Error::other("the file has more than its tensors"));
            }
            rest = match self.take(rest) {
                Ok(rest) => rest,
                Err(failure) => {
                    let error = io::Error::other(failure.to_string());
                    self.failure = Some(failure);
                    return Err(error);
                }
            };
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Exported {
    fn text(&self) -> String {
        format!(
            "exported {} to {}: {} tensors ({} of them deduplicated), {} for {}, {:.2} s, {}",
            self.model,
            self.path,
            self.tensors,
            self.deduplicated_tensors,
            bytes(self.len_bytes),
            bytes(self.logical_bytes),
            self.elapsed_s,
            speed(rate(self.logical_bytes, self.elapsed_s)),
        )
    }
}
