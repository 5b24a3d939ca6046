//! A file of Coral's as the model that a store imports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use core_view::safetensors::{Header, HeaderBuilder};
use core_view::{DType, TensorStorage};
use serde_json::{Map, Value, json};

use super::file::{CoralFile, CoralWeight};
use crate::{ByteSource, CoralFidelity, DeltaKind, WeightError, WeightTensor, decode_coral_delta};

/// Bytes of decoded tensors that are kept; the one that was read last always is.
const KEPT_BYTES: usize = 48 << 20;

/// A tensor of a [`CoralModel`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoralTensor {
    /// Its name in the model: the one in the file, made unique.
    pub name: String,
    /// The key of its dataset.
    pub key: String,
    /// The kind of delta that it is made of; `None` where the file has it whole.
    pub delta: Option<DeltaKind>,
    dtype: DType,
    shape: Vec<u64>,
    about: Attributes,
}

/// What a tensor is said to be besides its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attributes {
    layer_type: Option<String>,
    model_name: Option<String>,
    compression_info: String,
}

/// A delta of a file that no tensor can be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoralSkipped {
    /// The key of its dataset.
    pub key: String,
    /// Why not.
    pub reason: String,
}

/// A file in Coral's layout, seen as one safetensors file: the tensors that it has whole, and those that its
/// deltas make.
///
/// It is a [`ByteSource`], to be imported as a model. Tensors are decoded when they are read; what is kept of
/// them is bounded. A delta's tensor has the name of its reference, as in Coral; names that occur more than
/// once are told apart by the key of the dataset, `NAME@KEY`.
///
/// ```
/// use core_view::DType;
/// use std::sync::Arc;
/// use tier_nvme::sim::SimVolume;
/// use weightstore::{
///     CoralFile, CoralFileWriter, CoralModel, Hdf5Compression, ImportOptions, NativeConfig, NativeStore,
///     SourceFile, WeightTensor,
/// };
///
/// let mut writer = CoralFileWriter::new(Hdf5Compression::default());
/// writer.add(&WeightTensor::new("fc.bias", DType::F32, &[2], vec![0.5_f32, -0.5])?)?;
/// let mut bytes = Vec::new();
/// writer.finish_to(&mut bytes)?;
///
/// let model = CoralModel::new(Arc::new(CoralFile::open("model.h5", Arc::new(bytes))?), None)?;
/// let store = NativeStore::on_volume(SimVolume::new(1).handle(), NativeConfig::default())?;
/// let source = SourceFile { name: "model.safetensors", source: &model };
/// let report = store.add_model("model", source, &ImportOptions::default())?;
/// assert_eq!(report.tensors, 1);
/// # Ok::<(), weightstore::WeightError>(())
/// ```
#[derive(Debug)]
pub struct CoralModel {
    file: Arc<CoralFile>,
    header: Header,
    /// In the order of the header.
    tensors: Vec<CoralTensor>,
    skipped: Vec<CoralSkipped>,
    kept: Mutex<Kept>,
    /// Held while a tensor is decoded, so that no two threads decode the same one.
    decoding: Mutex<()>,
}

/// Tensors that were decoded last, and what was learnt of deltas.
#[derive(Debug, Default)]
struct Kept {
    tensors: VecDeque<(usize, TensorStorage)>,
    fidelity: BTreeMap<usize, CoralFidelity>,
}

impl CoralModel {
    /// Lists the tensors of a file; of one model only, if it is named.
    ///
    /// # Errors
    /// [`WeightError::Hdf5`]; [`WeightError::ModelNotFound`] if no tensor belongs to the named model;
    /// [`WeightError::Safetensors`] for what a safetensors file can't hold.
    pub fn new(file: Arc<CoralFile>, model: Option<&str>) -> Result<Self, WeightError> {
        let mut tensors = Vec::new();
        let mut skipped = Vec::new();
        for key in file.weights() {
            tensors.push(CoralTensor::whole(file.describe(key)?));
        }
        let references: BTreeMap<String, CoralTensor> = tensors
            .iter()
            .map(|tensor| (tensor.key.clone(), tensor.clone()))
            .collect();
        for key in file.deltas() {
            let (kind, dtype, shape, reference) = file.describe_delta(key)?;
            match references.get(&reference) {
                Some(reference) => tensors.push(CoralTensor {
                    key: key.clone(),
                    delta: Some(kind),
                    dtype,
                    shape,
                    ..reference.clone()
                }),
                None => skipped.push(CoralSkipped {
                    key: key.clone(),
                    reason: format!("its reference {reference} is not in the file"),
                }),
            }
        }
        if let Some(model) = model {
            tensors.retain(|tensor| tensor.about.model_name.as_deref() == Some(model));
            if tensors.is_empty() {
                return Err(WeightError::ModelNotFound { name: model.into() });
            }
        }
        tell_apart(&mut tensors);
        // Wide types first, so that every tensor is aligned for its type.
        tensors.sort_by(|a, b| (b.dtype.bits(), &a.name).cmp(&(a.dtype.bits(), &b.name)));
        let mut header = HeaderBuilder::new();
        for tensor in &tensors {
            header = header.tensor(&tensor.name, tensor.dtype, &tensor.shape);
        }
        let header = header.build().map_err(|source| WeightError::Safetensors {
            file: file.name().to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            header,
            tensors,
            skipped,
            kept: Mutex::default(),
            decoding: Mutex::default(),
        })
    }

    /// Its tensors, in the order of the safetensors file.
    pub fn tensors(&self) -> &[CoralTensor] {
        &self.tensors
    }

    /// The deltas that no tensor can be made of.
    pub fn skipped(&self) -> &[CoralSkipped] {
        &self.skipped
    }

    /// How sure it is that a tensor is the one that Coral was given, by its place among
    /// [`tensors`](Self::tensors); `None` where the file has it whole. It is decoded for that unless it was read.
    ///
    /// # Errors
    /// As [`CoralFile::delta`] and [`decode_coral_delta`].
    pub fn fidelity(&self, index: usize) -> Result<Option<CoralFidelity>, WeightError> {
        let tensor = self.tensors.get(index);
        if tensor.is_none_or(|tensor| tensor.delta.is_none()) {
            return Ok(None);
        }
        let known = self.kept().fidelity.get(&index).copied();
        match known {
            Some(known) => Ok(Some(known)),
            None => {
                self.load(index)?;
                Ok(self.kept().fidelity.get(&index).copied())
            }
        }
    }

    /// What the file says of its tensors besides name, type and shape, as JSON: an object by tensor, with the
    /// attributes that are not empty.
    pub fn attributes(&self) -> String {
        let mut attributes = Map::new();
        for tensor in &self.tensors {
            let about = &tensor.about;
            let fields = [
                ("layer_type", about.layer_type.as_deref()),
                ("model_name", about.model_name.as_deref()),
                (
                    "compression_info",
                    Some(about.compression_info.as_str()).filter(|text| !text.is_empty()),
                ),
            ];
            let fields: Map<String, Value> = fields
                .into_iter()
                .filter_map(|(field, text)| Some((field.to_owned(), json!(text?))))
                .collect();
            if !fields.is_empty() {
                attributes.insert(tensor.name.clone(), fields.into());
            }
        }
        Value::Object(attributes).to_string()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // What is kept is whole after each statement that changes it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn load(&self, index: usize) -> Result<TensorStorage, WeightError> {
        if let Some(storage) = self.kept().find(index) {
            return Ok(storage);
        }
        let _decoding = self.decoding.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(storage) = self.kept().find(index) {
            return Ok(storage);
        }
        let (weight, fidelity) = self.decode(index)?;
        let storage = weight.data().clone();
        let mut kept = self.kept();
        kept.keep(index, storage.clone());
        if let Some(fidelity) = fidelity {
            kept.fidelity.insert(index, fidelity);
        }
        Ok(storage)
    }

    fn decode(&self, index: usize) -> Result<(WeightTensor, Option<CoralFidelity>), WeightError> {
        let absent = || WeightError::storage("find a tensor", "there is none of that number");
        let tensor = self.tensors.get(index).ok_or_else(absent)?;
        if tensor.delta.is_none() {
            return Ok((self.file.weight(&tensor.key)?, None));
        }
        let delta = self.file.delta(&tensor.key)?;
        let reference = self.file.weight(&delta.reference_hash().to_string())?;
        let decoded = decode_coral_delta(&delta, &reference)?;
        Ok((decoded.weight, Some(decoded.fidelity)))
    }
}

impl Kept {
    fn find(&self, index: usize) -> Option<TensorStorage> {
        let found = self.tensors.iter().find(|(known, _)| *known == index);
        found.map(|(_, storage)| storage.clone())
    }

    fn keep(&mut self, index: usize, storage: TensorStorage) {
        self.tensors.push_front((index, storage));
        let mut bytes = 0;
        self.tensors.retain(|(_, storage)| {
            let first = bytes == 0;
            bytes += storage.len().max(1);
            first || bytes <= KEPT_BYTES
        });
    }
}

impl CoralTensor {
    fn whole(about: CoralWeight) -> Self {
        Self {
            name: about.name,
            key: about.key,
            delta: None,
            dtype: about.dtype,
            shape: about.shape,
            about: Attributes {
                layer_type: about.layer_type,
                model_name: about.model_name,
                compression_info: about.compression_info,
            },
        }
    }
}

/// Adds the key to every name that is not the only one of its kind.
fn tell_apart(tensors: &mut [CoralTensor]) {
    let mut seen = BTreeSet::new();
    let mut repeated = BTreeSet::new();
    for tensor in tensors.iter() {
        if !seen.insert(tensor.name.clone()) {
            repeated.insert(tensor.name.clone());
        }
    }
    for tensor in tensors {
        if repeated.contains(&tensor.name) || tensor.name.is_empty() {
            tensor.name = format!("{}@{}", tensor.name, tensor.key);
        }
    }
}

impl ByteSource for CoralModel {
    fn len_bytes(&self) -> io::Result<u64> {
        let last = self.header.tensors().last();
        Ok(self.header.data_start() + last.map_or(0, |info| info.end))
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        let header = self.header.raw();
        let mut target = target;
        let mut at = offset_bytes;
        while !target.is_empty() {
            let part = match at.checked_sub(header.len() as u64) {
                None => header.get(at as usize..).unwrap_or_default().to_vec(),
                Some(data_offset) => self.part_at(data_offset, target.len())?,
            };
            let len = part.len().min(target.len());
            let (done, rest) = target.split_at_mut(len);
            let source = part.get(..len).filter(|source| !source.is_empty());
            done.copy_from_slice(source.ok_or(io::ErrorKind::UnexpectedEof)?);
            at += len as u64;
            target = rest;
        }
        Ok(())
    }
}

impl CoralModel {
    /// Bytes of the tensor at an offset of the data, up to its end and at most `len`.
    fn part_at(&self, offset_bytes: u64, len: usize) -> io::Result<Vec<u8>> {
        let infos = self.header.tensors();
        let index = infos.partition_point(|info| info.end <= offset_bytes);
        let info = infos.get(index).ok_or(io::ErrorKind::UnexpectedEof)?;
        let storage = self.load(index).map_err(io::Error::other)?;
        let start = (offset_bytes - info.start) as usize;
        let bytes = storage.as_slice().get(start..).unwrap_or_default();
        Ok(bytes.get(..len).unwrap_or(bytes).to_vec())
    }
}
