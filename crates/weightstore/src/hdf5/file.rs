//! A file that is read.

use std::sync::Arc;

use core_view::DType;
use hdf5_pure::{ChunkCacheConfig, Dataset, FileAccessProperties, MetadataCacheConfig};

use super::attributes::Attributes;
use super::element;
use super::library::{LibrarySource, call, unusable};
use super::storage::{self, Extent, Place};
use crate::metadata::Label;
use crate::{
    ByteSource, CoralAlias, Delta, DeltaKind, HashKey, WeightError, WeightHash, WeightTensor,
};

/// Bytes of parsed structure that are kept.
const METADATA_CACHE_BYTES: usize = 8 << 20;

/// Coral's way to say that nothing is known.
const EMPTY_JSON: &str = "{}";

/// What a file in Coral's layout says of a tensor, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoralWeight {
    /// The name of its dataset, by default its hash.
    pub key: String,
    /// The tensor's name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// The lengths of its dimensions.
    pub shape: Vec<u64>,
    /// The kind of layer that it belongs to.
    pub layer_type: Option<String>,
    /// The model that it belongs to.
    pub model_name: Option<String>,
    /// JSON about how it was compressed; empty for none.
    pub compression_info: String,
    /// Coral's hash of it, as the file states it.
    pub alias: Option<CoralAlias>,
    /// The SHA-256 root of it, where this crate wrote the file.
    pub hash: Option<WeightHash>,
    /// Its length in bytes.
    pub len_bytes: u64,
    /// Bytes that its dataset takes in the file.
    pub stored_bytes: u64,
}

impl CoralWeight {
    pub(super) fn label(&self) -> Label {
        Label {
            name: self.name.clone(),
            layer_type: self.layer_type.clone(),
            model_name: self.model_name.clone(),
            compression_info: self.compression_info.clone(),
        }
    }
}

/// Kind, type, shape and reference of a delta.
pub(super) type AboutDelta = (DeltaKind, DType, Vec<u64>, String);

/// An HDF5 file in Coral's layout, open for reading.
///
/// Nothing in it is trusted: what a dataset claims is held against what the file has before memory is
/// asked for, and what was read against Coral's hash of it.
pub struct CoralFile {
    name: String,
    len_bytes: u64,
    weights: Listing,
    deltas: Listing,
    foreign: Vec<String>,
}

/// The datasets of a group: their names in order, and a handle for each.
#[derive(Default)]
struct Listing {
    keys: Vec<String>,
    /// In the order of the keys. A look-up by name would go through the group each time.
    datasets: Vec<Dataset>,
}

impl Listing {
    fn read(file: &str, library: &hdf5_pure::File, group: &str) -> Result<Self, WeightError> {
        let mut found = call(file, group, || {
            let members = library.group(group)?.iter_datasets()?;
            Ok(members.collect::<Vec<_>>())
        })?;
        found.sort_by(|one, other| one.0.cmp(&other.0));
        let (keys, datasets) = found.into_iter().unzip();
        Ok(Self { keys, datasets })
    }

    fn find(&self, key: &str) -> Option<&Dataset> {
        let index = self.keys.binary_search_by(|known| known.as_str().cmp(key));
        self.datasets.get(index.ok()?)
    }
}

impl std::fmt::Debug for CoralFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoralFile")
            .field("name", &self.name)
            .field("weights", &self.weights.keys.len())
            .field("deltas", &self.deltas.keys.len())
            .finish_non_exhaustive()
    }
}

/// The objects of a file that are not of the layout.
fn foreign(
    name: &str,
    library: &hdf5_pure::File,
    groups: &[String],
) -> Result<Vec<String>, WeightError> {
    let known = ["weights", "metadata", "deltas"];
    let other = groups
        .iter()
        .filter(|group| !known.contains(&group.as_str()));
    let mut foreign: Vec<String> = other.cloned().collect();
    foreign.extend(call(name, "its datasets", || library.root().datasets())?);
    for group in groups
        .iter()
        .filter(|group| known.contains(&group.as_str()))
    {
        let below = |inner: String| format!("{group}/{inner}");
        let inner = call(name, group, || library.group(group)?.groups())?;
        foreign.extend(inner.into_iter().map(below));
        if group == "metadata" {
            let inner = call(name, group, || library.group(group)?.datasets())?;
            foreign.extend(inner.into_iter().map(below));
        }
    }
    Ok(foreign)
}

impl CoralFile {
    /// Opens the file that `source` has; messages call it `name`.
    ///
    /// # Errors
    /// [`WeightError::Hdf5`] for a file that is not HDF5 or lacks the group of weights;
    /// [`WeightError::Source`].
    pub fn open(name: impl Into<String>, source: Arc<dyn ByteSource>) -> Result<Self, WeightError> {
        let name = name.into();
        let len_bytes = source.len_bytes().map_err(|error| WeightError::Source {
            file: name.clone(),
            offset_bytes: 0,
            len_bytes: 0,
            source: error,
        })?;
        let cache = MetadataCacheConfig::new(METADATA_CACHE_BYTES);
        // Whoever reads a tensor reads all of it, once: chunks are not worth keeping.
        let properties = FileAccessProperties::new()
            .with_metadata_cache(cache)
            .with_chunk_cache(ChunkCacheConfig::disabled());
        let source = LibrarySource { source, len_bytes };
        let library = call(&name, "its structure", || {
            hdf5_pure::File::from_source_with_options(source, properties)
        })?;
        let groups = call(&name, "its groups", || library.root().groups())?;
        if !groups.iter().any(|group| group == "weights") {
            return Err(unusable(&name, "it has no group \"weights\""));
        }
        let list = |group: &str| match groups.iter().any(|found| found == group) {
            true => Listing::read(&name, &library, group),
            false => Ok(Listing::default()),
        };
        Ok(Self {
            weights: list("weights")?,
            deltas: list("deltas")?,
            foreign: foreign(&name, &library, &groups)?,
            name,
            len_bytes,
        })
    }

    /// The keys of all tensors, sorted.
    pub fn weights(&self) -> &[String] {
        &self.weights.keys
    }

    /// The keys of all deltas, sorted.
    pub fn deltas(&self) -> &[String] {
        &self.deltas.keys
    }

    /// What messages call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the file has besides, by path: nothing that Coral 1.0 writes.
    pub(super) fn foreign(&self) -> &[String] {
        &self.foreign
    }

    /// Length of the file in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// What the file says of a tensor.
    ///
    /// # Errors
    /// [`WeightError::Hdf5`] if there is none of that key, or it is not as Coral writes it.
    pub fn describe(&self, key: &str) -> Result<CoralWeight, WeightError> {
        self.find_weight(key).map(|found| found.1)
    }

    /// A tensor.
    ///
    /// # Errors
    /// As [`describe`](Self::describe); [`WeightError::Corrupt`] if the content does not have the hash that
    /// the file states; [`WeightError::OutOfMemory`].
    pub fn weight(&self, key: &str) -> Result<WeightTensor, WeightError> {
        let (dataset, about) = self.find_weight(key)?;
        let path = format!("weights/{key}");
        let extent = Extent {
            len_bytes: about.len_bytes,
            stored_bytes: about.stored_bytes,
        };
        let bytes = storage::read(self.place(&path), dataset, extent)?;
        let label = about.label();
        let weight = WeightTensor::new(label.name.clone(), about.dtype, &about.shape, bytes)?
            .labelled(label);
        let damaged = |reason| Err(WeightError::corrupt("tensor", path.clone(), reason));
        match (about.alias, about.hash) {
            (Some(alias), _) if alias != weight.compute_alias() => {
                damaged("its content does not have the hash that its attribute states")
            }
            (_, Some(hash)) if hash != weight.compute_hash() => {
                damaged("its content does not have the SHA-256 root that its attribute states")
            }
            _ => Ok(weight),
        }
    }

    /// A delta.
    ///
    /// # Errors
    /// [`WeightError::Hdf5`] if there is none of that key, or it is not as Coral writes it;
    /// [`WeightError::Corrupt`] if it does not have the root that the file states; [`WeightError::OutOfMemory`].
    pub fn delta(&self, key: &str) -> Result<Delta, WeightError> {
        let path = format!("deltas/{key}");
        let place = self.place(&path);
        let (dataset, attributes) = self.find_delta(key, &path)?;
        let (kind, dtype, shape, reference) = self.about_delta(&path, &attributes)?;
        let reference: HashKey = reference
            .parse()
            .map_err(|_| place.wrong("its reference is named by something else than a hash"))?;
        let stored = call(&self.name, &path, || dataset.datatype())?;
        if !element::is_little_endian(&stored) {
            return Err(place.wrong("its numbers are big-endian"));
        }
        let extent = storage::extent(place, dataset)?;
        let payload = storage::read(place, dataset, extent)?;
        let metadata = match attributes.text("metadata")? {
            None | Some(EMPTY_JSON) => attributes.text("metadata_text")?.unwrap_or_default(),
            Some(text) => text,
        };
        let delta = Delta::new(kind, dtype, &shape, reference, payload)
            .with_compression_ratio(attributes.number("compression_ratio")?.unwrap_or(0.0))
            .with_metadata(metadata);
        match attributes.text("sha256")?.map(str::parse).transpose()? {
            Some(hash) if delta.compute_hash() != hash => Err(WeightError::corrupt(
                "delta",
                path.clone(),
                "its content does not have the SHA-256 root that its attribute states",
            )),
            _ => Ok(delta),
        }
    }

    /// Kind, type, shape and reference of a delta, without its payload.
    pub(super) fn describe_delta(&self, key: &str) -> Result<AboutDelta, WeightError> {
        let path = format!("deltas/{key}");
        let (_, attributes) = self.find_delta(key, &path)?;
        self.about_delta(&path, &attributes)
    }

    fn find_delta<'a>(
        &'a self,
        key: &str,
        path: &'a str,
    ) -> Result<(&'a Dataset, Attributes<'a>), WeightError> {
        let dataset = self.deltas.find(key).ok_or_else(|| self.absent(path))?;
        let attributes = Attributes::read(&self.name, path, dataset)?;
        Ok((dataset, attributes))
    }

    fn about_delta(
        &self,
        path: &str,
        attributes: &Attributes<'_>,
    ) -> Result<AboutDelta, WeightError> {
        let kind = attributes.required_text("delta_type")?;
        let kind = DeltaKind::from_name(kind).ok_or_else(|| {
            self.place(path)
                .wrong(&format!("there is no kind of delta {kind:?}"))
        })?;
        let dtype = self.dtype(path, attributes.required_text("original_dtype")?)?;
        let shape = attributes.shape("original_shape")?;
        let reference = attributes.required_text("reference_hash")?;
        Ok((kind, dtype, shape, reference.to_owned()))
    }

    /// Bytes that a delta takes, decoded and in the file.
    pub(super) fn delta_extent(&self, key: &str) -> Result<Extent, WeightError> {
        let path = format!("deltas/{key}");
        let dataset = self.deltas.find(key).ok_or_else(|| self.absent(&path))?;
        storage::extent(self.place(&path), dataset)
    }

    fn absent(&self, path: &str) -> WeightError {
        unusable(&self.name, format!("there is no dataset {path}"))
    }

    fn place<'a>(&'a self, dataset: &'a str) -> Place<'a> {
        Place {
            file: &self.name,
            dataset,
            file_bytes: self.len_bytes,
        }
    }

    fn dtype(&self, path: &str, name: &str) -> Result<DType, WeightError> {
        DType::from_numpy_name(name)
            .ok_or_else(|| unusable(&self.name, format!("{path}: there is no dtype {name:?}")))
    }

    fn find_weight(&self, key: &str) -> Result<(&Dataset, CoralWeight), WeightError> {
        let path = format!("weights/{key}");
        let place = self.place(&path);
        let dataset = self.weights.find(key).ok_or_else(|| self.absent(&path))?;
        let attributes = Attributes::read(&self.name, &path, dataset)?;
        let dtype = self.dtype(&path, attributes.required_text("dtype")?)?;
        let shape = attributes.shape("shape")?;
        let stored = call(&self.name, &path, || dataset.datatype())?;
        if !element::is_little_endian(&stored) {
            return Err(place.wrong("its numbers are big-endian"));
        }
        if !element::holds(&stored, dtype) {
            return Err(place.wrong("its elements are of another type than its attribute states"));
        }
        let extent = storage::extent(place, dataset)?;
        let held = call(&self.name, &path, || dataset.shape())?;
        let fits = match element::is_packed(dtype) {
            true => held == [extent.len_bytes],
            false => held == shape,
        };
        if !fits || crate::tensor::len_bytes(dtype, &shape) != Some(extent.len_bytes) {
            return Err(place.wrong("its shape is not the one that its attribute states"));
        }
        let optional = |attribute| -> Result<Option<String>, WeightError> {
            let text = attributes.text(attribute)?.filter(|text| !text.is_empty());
            Ok(text.map(str::to_owned))
        };
        let compression_info = optional("compression_info")?.filter(|text| text != EMPTY_JSON);
        let about = CoralWeight {
            key: key.to_owned(),
            name: attributes.required_text("name")?.to_owned(),
            dtype,
            shape,
            layer_type: optional("layer_type")?,
            model_name: optional("model_name")?,
            compression_info: compression_info.unwrap_or_default(),
            // Coral stores under any key that it is given; only its own hashes say something of the content.
            alias: attributes.text("hash")?.unwrap_or(key).parse().ok(),
            hash: attributes.text("sha256")?.map(str::parse).transpose()?,
            len_bytes: extent.len_bytes,
            stored_bytes: extent.stored_bytes,
        };
        Ok((dataset, about))
    }
}
