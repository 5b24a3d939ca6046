//! A file that is written.

use std::collections::BTreeSet;
use std::io::{self, Write};

use core_view::DType;
use hdf5_pure::{AttrValue, DatasetBuilder, FileBuilder, GroupBuilder};

use super::attributes::RANK_MAX;
use super::config::Hdf5Compression;
use super::element;
use super::library::call;
use crate::coral::metadata;
use crate::{Delta, DeltaKind, WeightError, WeightHash, WeightTensor};

/// Bytes that a chunk has at most.
const CHUNK_BYTES: u64 = 1 << 20;

/// Elements that a chunk has at most along a dimension: those that two bytes can tell. For more the library
/// writes four bytes a dimension where three would do, which HDF5 takes up to 1.14 and refuses from 2.0 on. The
/// dimension that the format appends, the width of an element, is one of a few bytes.
const CHUNK_DIMENSION_MAX: u64 = 0xFFFF;

/// Writes a new file in Coral's layout.
///
/// The content stays in memory until the file is finished, which takes what it is compressed to twice.
///
/// ```
/// use core_view::DType;
/// use std::sync::Arc;
/// use weightstore::{CoralFile, CoralFileWriter, Hdf5Compression, WeightTensor};
///
/// let weight = WeightTensor::new("fc.bias", DType::F32, &[2], vec![0.5_f32, -0.5])?;
/// let mut writer = CoralFileWriter::new(Hdf5Compression::default());
/// writer.add(&weight)?;
/// let mut bytes = Vec::new();
/// writer.finish_to(&mut bytes)?;
///
/// let file = CoralFile::open("model.h5", Arc::new(bytes))?;
/// let key = weight.compute_alias().to_string();
/// assert_eq!(file.weights(), [key.as_str()]);
/// assert_eq!(file.weight(&key)?.bytes(), weight.bytes());
/// # Ok::<(), weightstore::WeightError>(())
/// ```
pub struct CoralFileWriter {
    builder: FileBuilder,
    weights: GroupBuilder,
    deltas: GroupBuilder,
    compression: Hdf5Compression,
    keys: BTreeSet<String>,
    delta_keys: BTreeSet<String>,
}

impl std::fmt::Debug for CoralFileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoralFileWriter")
            .field("compression", &self.compression)
            .field("weights", &self.keys.len())
            .field("deltas", &self.delta_keys.len())
            .finish_non_exhaustive()
    }
}

impl CoralFileWriter {
    /// A file without content.
    pub fn new(compression: Hdf5Compression) -> Self {
        let mut builder = FileBuilder::new();
        Self {
            weights: builder.create_group("weights"),
            deltas: builder.create_group("deltas"),
            builder,
            compression,
            keys: BTreeSet::new(),
            delta_keys: BTreeSet::new(),
        }
    }

    /// Adds a tensor under Coral's hash of it; `false` if the file has it already, as Coral does then.
    ///
    /// # Errors
    /// [`WeightError::InvalidName`] for a name, a layer or a model with a zero character, and for
    /// information about the compression that is not JSON; [`WeightError::TooManyDimensions`].
    pub fn add(&mut self, weight: &WeightTensor) -> Result<bool, WeightError> {
        self.add_as(&weight.compute_alias().to_string(), weight)
    }

    /// Adds a tensor under another key than its hash, as Coral does where it is told to.
    pub(super) fn add_as(&mut self, key: &str, weight: &WeightTensor) -> Result<bool, WeightError> {
        check_label(weight)?;
        if !self.keys.insert(key.to_owned()) {
            return Ok(false);
        }
        let label = weight.label();
        let information = match label.compression_info.as_str() {
            "" => "{}",
            json => json,
        };
        let attributes = [
            ("name", label.name.as_str()),
            ("dtype", weight.dtype().numpy_name()),
            ("layer_type", label.layer_type.as_deref().unwrap_or("")),
            ("model_name", label.model_name.as_deref().unwrap_or("")),
            ("compression_info", information),
            ("hash", key),
        ];
        let dataset = self.weights.create_dataset(key);
        let held = match element::is_packed(weight.dtype()) {
            true => vec![weight.bytes().len() as u64],
            false => weight.shape().to_vec(),
        };
        fill(
            dataset,
            weight.dtype(),
            &held,
            weight.bytes(),
            self.compression,
        )?;
        dataset.set_attr("shape", AttrValue::I64Array(signed(weight.shape())?));
        set_texts(dataset, &attributes);
        set_root(dataset, weight.compute_hash());
        Ok(true)
    }

    /// Adds a delta under its SHA-256 root; `false` if the file has it already.
    ///
    /// # Errors
    /// [`WeightError::InvalidName`] for metadata that is not JSON; [`WeightError::TooManyDimensions`].
    pub fn add_delta(&mut self, delta: &Delta) -> Result<bool, WeightError> {
        self.add_delta_as(&delta.compute_hash().to_string(), delta)
    }

    /// Adds a delta under another key than its root.
    pub(super) fn add_delta_as(&mut self, key: &str, delta: &Delta) -> Result<bool, WeightError> {
        check_delta(delta)?;
        if !self.delta_keys.insert(key.to_owned()) {
            return Ok(false);
        }
        let metadata = match delta.metadata() {
            "" => "{}",
            json => json,
        };
        let reference = delta.reference_hash().to_string();
        let mut attributes = vec![
            ("delta_type", delta.kind().name()),
            ("original_dtype", delta.original_dtype().numpy_name()),
            ("reference_hash", reference.as_str()),
            ("metadata", metadata),
        ];
        if delta.metadata() == "{}" {
            attributes.push(("metadata_text", "{}"));
        }
        let (dtype, shape) = payload_form(delta);
        let dataset = self.deltas.create_dataset(key);
        fill(dataset, dtype, &shape, delta.payload(), self.compression)?;
        let original = signed(delta.original_shape())?;
        dataset.set_attr("original_shape", AttrValue::I64Array(original));
        dataset.set_attr(
            "compression_ratio",
            AttrValue::F64(delta.compression_ratio()),
        );
        set_texts(dataset, &attributes);
        set_root(dataset, delta.compute_hash());
        Ok(true)
    }

    /// Writes the file.
    ///
    /// # Errors
    /// [`WeightError::Target`] if `target` fails; [`WeightError::Hdf5`] for content that HDF5 can't hold.
    pub fn finish_to(self, target: &mut dyn Write) -> Result<u64, WeightError> {
        let mut builder = self.builder;
        builder.add_group(self.weights.finish());
        let metadata = builder.create_group("metadata");
        builder.add_group(metadata.finish());
        builder.add_group(self.deltas.finish());
        let mut counted = Counted {
            target,
            len_bytes: 0,
            failure: None,
        };
        let written = call("the new file", "its content", || {
            builder.finish_to(&mut counted)
        });
        match (written, counted.failure) {
            (_, Some(source)) => Err(WeightError::Target {
                name: "the HDF5 file".to_owned(),
                source,
            }),
            (written, None) => written.map(|()| counted.len_bytes),
        }
    }
}

/// Counts what is written, and keeps the failure that the library would make a text of.
struct Counted<'a> {
    target: &'a mut dyn Write,
    len_bytes: u64,
    failure: Option<io::Error>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.target.write(bytes) {
            Ok(written) => {
                self.len_bytes += written as u64;
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.flush()
    }
}

fn set_texts(dataset: &mut DatasetBuilder, attributes: &[(&str, &str)]) {
    for (name, text) in attributes {
        dataset.set_attr(name, AttrValue::VarLenString((*text).to_owned()));
    }
}

/// Coral does not look at it, so it need not be of variable length, which takes a heap of its own.
fn set_root(dataset: &mut DatasetBuilder, root: WeightHash) {
    dataset.set_attr("sha256", AttrValue::AsciiString(root.to_string()));
}

/// Puts the bytes into a dataset. Like h5py, it leaves scalars and what is empty uncompressed.
fn fill(
    dataset: &mut DatasetBuilder,
    dtype: DType,
    shape: &[u64],
    bytes: &[u8],
    compression: Hdf5Compression,
) -> Result<(), WeightError> {
    let datatype = element::datatype_of(dtype)?;
    if bytes.is_empty() {
        dataset.with_dtype(datatype).with_shape(shape);
        return Ok(());
    }
    let width = u64::from(datatype.type_size());
    let elements = bytes.len() as u64 / width;
    dataset
        .with_shape(shape)
        .with_raw_data(datatype, bytes.to_vec(), elements);
    if shape.is_empty() {
        return Ok(());
    }
    match compression {
        Hdf5Compression::None => {}
        Hdf5Compression::Gzip { level } => {
            dataset
                .with_chunks(&chunk_shape(shape, width))
                .with_deflate(u32::from(level));
        }
        Hdf5Compression::Lzf => {
            dataset.with_chunks(&chunk_shape(shape, width)).with_lzf();
        }
    }
    Ok(())
}

/// Whole rows of the last dimensions, as many as fit into [`CHUNK_BYTES`]; rows of more elements than
/// [`CHUNK_DIMENSION_MAX`] are cut into even pieces, so that the last one has little to fill up.
fn chunk_shape(shape: &[u64], width: u64) -> Vec<u64> {
    let mut chunk: Vec<u64> = shape
        .iter()
        .map(|&dimension| {
            let pieces = dimension.div_ceil(CHUNK_DIMENSION_MAX);
            dimension.div_ceil(pieces.max(1))
        })
        .collect();
    for at in 0..chunk.len() {
        let inner = chunk
            .iter()
            .skip(at + 1)
            .fold(width, |product, &dimension| {
                product.saturating_mul(dimension)
            });
        let most = (CHUNK_BYTES / inner.max(1)).max(1);
        if let Some(dimension) = chunk.get_mut(at)
            && *dimension > most
        {
            *dimension = most;
        }
        if inner <= CHUNK_BYTES {
            break;
        }
    }
    chunk
}

/// The array that a payload is in Coral; bytes where it is not one.
fn payload_form(delta: &Delta) -> (DType, Vec<u64>) {
    let len = delta.payload().len() as u64;
    let dtype = match delta.kind() {
        DeltaKind::Float32Raw => DType::F32,
        DeltaKind::Int8Quantized => DType::I8,
        DeltaKind::Int16Quantized => DType::I16,
        DeltaKind::Sparse if len.is_multiple_of(8) => return (DType::F32, vec![len / 8, 2]),
        _ => return (DType::U8, vec![len]),
    };
    match crate::tensor::len_bytes(dtype, delta.original_shape()) {
        Some(expected) if expected == len => (dtype, delta.original_shape().to_vec()),
        _ => (DType::U8, vec![len]),
    }
}

fn signed(shape: &[u64]) -> Result<Vec<i64>, WeightError> {
    shape
        .iter()
        .map(|&dimension| {
            i64::try_from(dimension).map_err(|_| WeightError::InvalidConfig {
                field: "shape",
                reason: format!("a dimension of {dimension} is more than HDF5 attributes hold"),
            })
        })
        .collect()
}

/// Whether the file can keep what is known of a tensor.
pub(super) fn check_label(weight: &WeightTensor) -> Result<(), WeightError> {
    let label = weight.label();
    checked("name", &label.name)?;
    checked("layer type", label.layer_type.as_deref().unwrap_or(""))?;
    checked("model name", label.model_name.as_deref().unwrap_or(""))?;
    check_rank(weight.shape(), || label.name.clone())?;
    match label.compression_info.as_str() {
        "" => Ok(()),
        json => checked_json("compression information", json),
    }
}

/// Whether the file can keep what is known of a delta.
pub(super) fn check_delta(delta: &Delta) -> Result<(), WeightError> {
    check_rank(delta.original_shape(), || delta.compute_hash().to_string())?;
    match delta.metadata() {
        "" => Ok(()),
        json => checked_json("delta metadata", json),
    }
}

fn check_rank(shape: &[u64], name: impl FnOnce() -> String) -> Result<(), WeightError> {
    if shape.len() <= RANK_MAX {
        return Ok(());
    }
    Err(WeightError::TooManyDimensions {
        name: name(),
        rank: shape.len(),
        rank_max: RANK_MAX,
    })
}

/// A text that ends where it ends: HDF5 keeps texts up to the first zero.
fn checked(what: &'static str, text: &str) -> Result<(), WeightError> {
    if text.contains('\0') {
        return Err(invalid(what, text, "it has a zero character"));
    }
    Ok(())
}

fn checked_json(what: &'static str, text: &str) -> Result<(), WeightError> {
    match metadata::parse(text) {
        Some(_) => checked(what, text),
        None => Err(invalid(what, text, "it is not JSON")),
    }
}

fn invalid(what: &'static str, name: &str, reason: &'static str) -> WeightError {
    WeightError::InvalidName {
        what,
        name: name.chars().take(80).collect(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_rows_of_about_a_mebibyte() {
        assert_eq!(chunk_shape(&[10, 5], 4), [10, 5]);
        assert_eq!(chunk_shape(&[4096, 4096], 4), [64, 4096]);
        assert_eq!(chunk_shape(&[4096, 1 << 15, 2], 4), [4, 1 << 15, 2]);
        assert_eq!(chunk_shape(&[9, 0xFFFF], 8), [2, 0xFFFF]);
    }

    #[test]
    fn a_chunk_is_no_longer_than_two_bytes_can_tell() {
        assert_eq!(chunk_shape(&[1 << 16], 4), [1 << 15]);
        assert_eq!(chunk_shape(&[300_000], 4), [60_000]);
        assert_eq!(chunk_shape(&[1 << 22], 1), [(1_u64 << 22).div_ceil(65)]);
        assert_eq!(
            chunk_shape(&[1 << 22, 1], 1),
            [(1_u64 << 22).div_ceil(65), 1]
        );
        assert_eq!(chunk_shape(&[3, 1 << 20], 4), [3, 61_681]);
        assert_eq!(chunk_shape(&[2, 3, 1 << 18], 4), [1, 3, 52_429]);
        assert_eq!(chunk_shape(&[u64::MAX], 8), [0xFFFF]);
    }

    #[test]
    fn more_dimensions_than_hdf5_takes_are_refused() {
        let of = |rank| WeightTensor::new("deep", DType::U8, &vec![1; rank], vec![7_u8]).unwrap();
        let mut writer = CoralFileWriter::new(Hdf5Compression::default());
        let (most, more) = (of(32), of(33));
        assert!(writer.add(&most).unwrap());
        let refused = writer.add(&more);
        assert!(
            matches!(
                &refused,
                Err(WeightError::TooManyDimensions { name, rank: 33, rank_max: 32 }) if name == "deep"
            ),
            "{refused:?}"
        );
        let delta = Delta::new(
            DeltaKind::Sparse,
            DType::U8,
            more.shape(),
            most.compute_hash(),
            vec![0_u8],
        );
        let refused = writer.add_delta(&delta);
        let hash = delta.compute_hash().to_string();
        assert!(
            matches!(&refused, Err(WeightError::TooManyDimensions { name, .. }) if *name == hash),
            "{refused:?}"
        );
        let mut bytes = Vec::new();
        writer.finish_to(&mut bytes).unwrap();
        let file = crate::CoralFile::open("deep.h5", std::sync::Arc::new(bytes)).unwrap();
        let key = most.compute_alias().to_string();
        assert_eq!(file.weights(), [key.as_str()]);
        assert_eq!(file.weight(&key).unwrap().shape(), most.shape());
    }

    /// Files from before chunks were that short, and others that HDF5 1.14 opens.
    #[test]
    fn longer_chunks_are_read() {
        let values: Vec<f32> = (0..300_000).map(|at| at as f32).collect();
        let weight = WeightTensor::new("w", DType::F32, &[300_000], values).unwrap();
        let key = weight.compute_alias().to_string();
        let mut builder = FileBuilder::new();
        let mut weights = builder.create_group("weights");
        let dataset = weights.create_dataset(&key);
        dataset
            .with_shape(weight.shape())
            .with_raw_data(
                element::datatype_of(DType::F32).unwrap(),
                weight.bytes().to_vec(),
                300_000,
            )
            .with_chunks(&[1 << 18])
            .with_deflate(1);
        dataset.set_attr("shape", AttrValue::I64Array(vec![300_000]));
        set_texts(dataset, &[("name", "w"), ("dtype", "float32")]);
        builder.add_group(weights.finish());
        let mut bytes = Vec::new();
        builder.finish_to(&mut bytes).unwrap();
        let file = crate::CoralFile::open("long.h5", std::sync::Arc::new(bytes)).unwrap();
        assert_eq!(file.weight(&key).unwrap().bytes(), weight.bytes());
    }
}
