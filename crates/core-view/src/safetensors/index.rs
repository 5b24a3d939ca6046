//! The index of a model that is split over several files.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::SafetensorsError;
use super::json::StringPairs;

/// Which file of a sharded model holds which tensor (`model.safetensors.index.json`).
///
/// ```
/// use core_view::safetensors::ShardIndex;
///
/// let index = ShardIndex::parse(
///     br#"{"metadata":{"total_size":12},"weight_map":{"w":"model-00001-of-00001.safetensors"}}"#,
/// )?;
/// assert_eq!(index.shards().collect::<Vec<_>>(), ["model-00001-of-00001.safetensors"]);
/// # Ok::<(), core_view::safetensors::SafetensorsError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardIndex {
    weight_map: BTreeMap<String, String>,
    total_size_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: StringPairs,
    #[serde(default)]
    metadata: Option<RawMetadata>,
}

#[derive(Deserialize)]
struct RawMetadata {
    #[serde(default)]
    total_size: Option<serde_json::Number>,
}

impl ShardIndex {
    /// Checks the text of an index.
    ///
    /// # Errors
    /// [`SafetensorsError::Json`] for a text of another form, [`SafetensorsError::DuplicateName`] for a
    /// tensor that occurs twice, [`SafetensorsError::ShardName`] for a shard that is not a plain file
    /// name: an index can't lead out of its folder.
    pub fn parse(json: &[u8]) -> Result<Self, SafetensorsError> {
        let raw: RawIndex =
            serde_json::from_slice(json).map_err(|source| SafetensorsError::Json {
                what: "index",
                source,
            })?;
        let mut weight_map = BTreeMap::new();
        for (tensor, shard) in raw.weight_map.0 {
            if !is_file_name(&shard) {
                return Err(SafetensorsError::ShardName { tensor, shard });
            }
            if weight_map.contains_key(&tensor) {
                return Err(SafetensorsError::DuplicateName {
                    name: tensor,
                    what: "index",
                });
            }
            weight_map.insert(tensor, shard);
        }
        let total_size = raw.metadata.and_then(|metadata| metadata.total_size);
        Ok(Self {
            weight_map,
            total_size_bytes: total_size.and_then(|size| size.as_u64()),
        })
    }

    /// The file that holds the tensor of that name.
    pub fn shard_of(&self, tensor: &str) -> Option<&str> {
        self.weight_map.get(tensor).map(String::as_str)
    }

    /// Each tensor with its file, in the order of the tensors' names.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.weight_map
            .iter()
            .map(|(tensor, shard)| (tensor.as_str(), shard.as_str()))
    }

    /// The files, each once, in the order of their names.
    pub fn shards(&self) -> impl Iterator<Item = &str> {
        let mut shards: Vec<&str> = self.weight_map.values().map(String::as_str).collect();
        shards.sort_unstable();
        shards.dedup();
        shards.into_iter()
    }

    /// The size of all tensors in bytes, where the index states it as a whole number.
    pub fn total_size_bytes(&self) -> Option<u64> {
        self.total_size_bytes
    }
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
