//! `stepwell weights export-h5`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::{Deserialize, Serialize};
use weightstore::{
    CoralFileWriter, Hdf5Compression, ModelInfo, ModelTensor, NativeStore, WeightError,
    WeightStore, WeightTensor,
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
    /// Most bytes of tensors: they are in memory until the file is written, with what they are compressed to.
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
    let mut added = 0;
    for tensor in tensors() {
        let about = attributes.get(&tensor.name);
        let weight = load(&store, tensor, &model.name, about)?;
        added += u64::from(writer.add(&weight)?);
    }
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

/// A tensor under the names that Coral is to see.
fn load(
    store: &NativeStore,
    tensor: &ModelTensor,
    model: &str,
    about: Option<&Attributes>,
) -> Result<WeightTensor, CliError> {
    let absent = || WeightError::corrupt("tensor", tensor.hash.to_string(), "it is not there");
    let content = store.load(&tensor.hash.into())?.ok_or_else(absent)?;
    let data = content.data().clone();
    let mut weight = WeightTensor::new(&*tensor.name, tensor.dtype, &tensor.shape, data)?;
    let model_name = about.and_then(|about| about.model_name.as_deref());
    weight = weight.with_model_name(model_name.unwrap_or(model));
    if let Some(layer_type) = about.and_then(|about| about.layer_type.as_deref()) {
        weight = weight.with_layer_type(layer_type);
    }
    if let Some(json) = about.and_then(|about| about.compression_info.as_deref()) {
        weight = weight.with_compression_info(json);
    }
    Ok(weight)
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
