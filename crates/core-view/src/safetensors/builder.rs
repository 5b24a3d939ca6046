//! Writes a header.

use std::collections::BTreeMap;

use super::header::{METADATA_KEY, PREFIX_LEN, TensorInfo};
use super::{HEADER_LEN_MAX, Header, SafetensorsError};
use crate::DType;

/// Collects tensors and metadata, and lays them out one after the other.
///
/// The tensors' data follow each other in the order of the calls. List wide types first and every tensor
/// is aligned for its type, as the header itself is padded with spaces to a multiple of 8 bytes.
#[derive(Debug, Clone, Default)]
pub struct HeaderBuilder {
    tensors: Vec<(String, DType, Vec<u64>)>,
    metadata: BTreeMap<String, String>,
}

impl HeaderBuilder {
    /// A header without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor behind those that were added before.
    #[must_use]
    pub fn tensor(mut self, name: impl Into<String>, dtype: DType, shape: &[u64]) -> Self {
        self.tensors.push((name.into(), dtype, shape.to_vec()));
        self
    }

    /// Sets a metadata entry.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Lays the tensors out and writes the header's text.
    ///
    /// # Errors
    /// [`SafetensorsError::DuplicateName`] or [`SafetensorsError::ReservedName`] for a name that can't be
    /// used, [`SafetensorsError::SizeOverflow`] or [`SafetensorsError::PartialByte`] for a shape that
    /// can't be stored, [`SafetensorsError::HeaderTooLarge`] for a text above the format's limit.
    pub fn build(self) -> Result<Header, SafetensorsError> {
        let mut tensors = Vec::with_capacity(self.tensors.len());
        let mut data_len = 0;
        for (name, dtype, shape) in self.tensors {
            if name == METADATA_KEY {
                return Err(SafetensorsError::ReservedName { name });
            }
            let info = TensorInfo::starting_at(name, dtype, shape, data_len)?;
            data_len = info.end;
            tensors.push(info);
        }
        let json = write_json(&tensors, &self.metadata)
            .map_err(|source| SafetensorsError::Json {
                what: "header",
                source,
            })?
            .into_bytes();
        let padded_len = json.len().next_multiple_of(8);
        if padded_len as u64 > HEADER_LEN_MAX {
            return Err(SafetensorsError::HeaderTooLarge {
                claimed_bytes: padded_len as u64,
                limit_bytes: HEADER_LEN_MAX,
            });
        }
        let mut raw = Vec::with_capacity(PREFIX_LEN + padded_len);
        raw.extend_from_slice(&(padded_len as u64).to_le_bytes());
        raw.extend_from_slice(&json);
        raw.resize(PREFIX_LEN + padded_len, b' ');
        Header::assemble(raw, tensors, self.metadata, data_len)
    }
}

fn write_json(
    tensors: &[TensorInfo],
    metadata: &BTreeMap<String, String>,
) -> Result<String, serde_json::Error> {
    let mut entries = Vec::with_capacity(tensors.len() + 1);
    if !metadata.is_empty() {
        entries.push(format!(
            "\"{METADATA_KEY}\":{}",
            serde_json::to_string(metadata)?
        ));
    }
    for info in tensors {
        entries.push(format!(
            "{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}",
            serde_json::to_string(&info.name)?,
            info.dtype,
            serde_json::to_string(&info.shape)?,
            info.start,
            info.end
        ));
    }
    Ok(format!("{{{}}}", entries.join(",")))
}
