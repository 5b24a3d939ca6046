//! The header: which tensors a file holds, and where.

use std::collections::BTreeMap;
use std::io::Read;

use super::SafetensorsError;
use super::json::{Pairs, RawHeader, RawTensor};
use crate::DType;

/// The longest header that the format allows, in bytes.
pub const HEADER_LEN_MAX: u64 = 100_000_000;

/// Bytes of the length in front of the header.
pub(super) const PREFIX_LEN: usize = 8;

/// The key of the free-form metadata among the tensors' names.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// Where one tensor is, and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TensorInfo {
    /// The tensor's name.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// The lengths of its dimensions; none for a scalar.
    pub shape: Vec<u64>,
    /// Offset of its first byte in the data section.
    pub start: u64,
    /// Offset one past its last byte in the data section.
    pub end: u64,
}

impl TensorInfo {
    /// Length of the data in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The tensor that starts at `start`, its end computed from type and shape.
    pub(super) fn starting_at(
        name: String,
        dtype: DType,
        shape: Vec<u64>,
        start: u64,
    ) -> Result<Self, SafetensorsError> {
        let len = match len_bits(dtype, &shape) {
            Some(bits) if bits.is_multiple_of(8) => bits / 8,
            Some(bits) => {
                return Err(SafetensorsError::PartialByte {
                    tensor: name,
                    dtype,
                    shape,
                    bits,
                });
            }
            None => {
                return Err(SafetensorsError::SizeOverflow {
                    tensor: name,
                    dtype,
                    shape,
                });
            }
        };
        match start.checked_add(len) {
            Some(end) => Ok(Self {
                name,
                dtype,
                shape,
                start,
                end,
            }),
            None => Err(SafetensorsError::SizeOverflow {
                tensor: name,
                dtype,
                shape,
            }),
        }
    }

    /// Checks a tensor as it stands in the text.
    fn from_raw(name: String, raw: RawTensor) -> Result<Self, SafetensorsError> {
        let (start, end) = raw.data_offsets;
        let Some(dtype) = DType::from_safetensors_name(&raw.dtype) else {
            return Err(SafetensorsError::UnknownDType {
                tensor: name,
                dtype: raw.dtype,
            });
        };
        if end < start {
            return Err(SafetensorsError::InvertedRange {
                tensor: name,
                start,
                end,
            });
        }
        let sized = Self::starting_at(name, dtype, raw.shape, 0)?;
        if sized.end != end - start {
            return Err(SafetensorsError::SizeMismatch {
                tensor: sized.name,
                dtype,
                shape: sized.shape,
                expected_bytes: sized.end,
                found_bytes: end - start,
            });
        }
        Ok(Self {
            start,
            end,
            ..sized
        })
    }
}

/// Size in bits; `None` if it overflows.
fn len_bits(dtype: DType, shape: &[u64]) -> Option<u64> {
    // The reference multiplies in order, so a zero does not excuse an overflow before it.
    let elements = shape
        .iter()
        .try_fold(1_u64, |product, &dim| product.checked_mul(dim))?;
    elements.checked_mul(dtype.bits() as u64)
}

/// A checked header, with its bytes as they were read.
///
/// Every range lies inside the data section, and together they cover it exactly. Memory is in proportion
/// to the header's text, whatever numbers the text claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    raw: Vec<u8>,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, in the order of the names.
    by_name: Vec<usize>,
    metadata: BTreeMap<String, String>,
    data_len: u64,
}

impl Header {
    /// Checks the header's text (without the length in front) against a data section of `data_len` bytes.
    ///
    /// # Errors
    /// One variant of [`SafetensorsError`] for each way in which a header can be wrong.
    pub fn parse(header_json: &[u8], data_len: u64) -> Result<Self, SafetensorsError> {
        let mut raw = Vec::with_capacity(PREFIX_LEN + header_json.len());
        raw.extend_from_slice(&(header_json.len() as u64).to_le_bytes());
        raw.extend_from_slice(header_json);
        Self::from_raw(raw, data_len)
    }

    /// Reads the length and the header from the start of a file of `file_len` bytes.
    ///
    /// Nothing past the header is read, so that the reader stands at the data section afterwards.
    ///
    /// # Errors
    /// As [`Header::parse`]; [`SafetensorsError::Io`] if reading fails,
    /// [`SafetensorsError::HeaderTooLarge`] before anything is allocated for it, and
    /// [`SafetensorsError::TooShort`] or [`SafetensorsError::HeaderTruncated`] if the file ends early.
    pub fn read(reader: &mut impl Read, file_len: u64) -> Result<Self, SafetensorsError> {
        let mut prefix = [0; PREFIX_LEN];
        let found_bytes = fill(reader, &mut prefix)? as u64;
        let Some(after_prefix) = file_len.checked_sub(PREFIX_LEN as u64) else {
            return Err(SafetensorsError::TooShort {
                found_bytes: file_len,
            });
        };
        if found_bytes < PREFIX_LEN as u64 {
            return Err(SafetensorsError::TooShort { found_bytes });
        }
        let claimed_bytes = u64::from_le_bytes(prefix);
        let len = header_len(claimed_bytes, after_prefix)?;
        let mut raw = vec![0; PREFIX_LEN + len];
        let (start, rest) = raw.split_at_mut(PREFIX_LEN);
        start.copy_from_slice(&prefix);
        let found = fill(reader, rest)?;
        if found < len {
            return Err(SafetensorsError::HeaderTruncated {
                expected_bytes: claimed_bytes,
                found_bytes: found as u64,
            });
        }
        Self::from_raw(raw, after_prefix - claimed_bytes)
    }

    fn from_raw(raw: Vec<u8>, data_len: u64) -> Result<Self, SafetensorsError> {
        let json = raw.get(PREFIX_LEN..).unwrap_or_default();
        if json.len() as u64 > HEADER_LEN_MAX {
            return Err(SafetensorsError::HeaderTooLarge {
                claimed_bytes: json.len() as u64,
                limit_bytes: HEADER_LEN_MAX,
            });
        }
        let text = std::str::from_utf8(json).map_err(|error| SafetensorsError::NotUtf8 {
            offset_bytes: error.valid_up_to(),
        })?;
        if !text.starts_with('{') {
            return Err(SafetensorsError::NotAnObject);
        }
        let parsed: RawHeader =
            serde_json::from_str(text).map_err(|source| SafetensorsError::Json {
                what: "header",
                source,
            })?;
        let metadata = unique_metadata(parsed.metadata)?;
        let tensors = parsed
            .tensors
            .into_iter()
            .map(|(name, raw)| TensorInfo::from_raw(name, raw))
            .collect::<Result<Vec<_>, _>>()?;
        Self::assemble(raw, tensors, metadata, data_len)
    }

    /// Puts the tensors into data order and checks them against each other and the data section.
    pub(super) fn assemble(
        raw: Vec<u8>,
        mut tensors: Vec<TensorInfo>,
        metadata: BTreeMap<String, String>,
        data_len: u64,
    ) -> Result<Self, SafetensorsError> {
        tensors.sort_by_key(|info| (info.start, info.end));
        let by_name = unique_names(&tensors)?;
        check_tiling(&tensors, data_len)?;
        Ok(Self {
            raw,
            tensors,
            by_name,
            metadata,
            data_len,
        })
    }

    /// The header's bytes exactly as they stand in the file: the length, the text, its padding.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The tensors in the order of their data.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        let info = |&index: &usize| self.tensors.get(index);
        self.by_name
            .binary_search_by(|index| info(index).map(|info| info.name.as_str()).cmp(&Some(name)))
            .ok()
            .and_then(|position| self.by_name.get(position))
            .and_then(info)
    }

    /// The free-form metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Offset of the data section in the file, in bytes.
    pub fn data_start(&self) -> u64 {
        self.raw.len() as u64
    }

    /// Length of the data section in bytes.
    pub fn data_len(&self) -> u64 {
        self.data_len
    }
}

/// Checks the length that a file claims for its header against the bytes that follow the length.
pub(super) fn header_len(claimed_bytes: u64, after_prefix: u64) -> Result<usize, SafetensorsError> {
    if claimed_bytes > HEADER_LEN_MAX {
        return Err(SafetensorsError::HeaderTooLarge {
            claimed_bytes,
            limit_bytes: HEADER_LEN_MAX,
        });
    }
    if claimed_bytes > after_prefix {
        return Err(SafetensorsError::HeaderTruncated {
            expected_bytes: claimed_bytes,
            found_bytes: after_prefix,
        });
    }
    Ok(claimed_bytes as usize)
}

/// Reads until the buffer is full or the reader ends; returns how many bytes came.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, SafetensorsError> {
    let mut rest = &mut *buffer;
    loop {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(SafetensorsError::Io {
                    what: "header",
                    source,
                });
            }
        }
    }
    let missing = rest.len();
    Ok(buffer.len() - missing)
}

fn unique_metadata(
    lists: Vec<Pairs<String>>,
) -> Result<BTreeMap<String, String>, SafetensorsError> {
    if lists.len() > 1 {
        return Err(SafetensorsError::DuplicateName {
            name: METADATA_KEY.into(),
            what: "header",
        });
    }
    let mut metadata = BTreeMap::new();
    for (name, value) in lists.into_iter().flatten() {
        if metadata.contains_key(&name) {
            return Err(SafetensorsError::DuplicateName {
                name,
                what: "metadata",
            });
        }
        metadata.insert(name, value);
    }
    Ok(metadata)
}

fn unique_names(tensors: &[TensorInfo]) -> Result<Vec<usize>, SafetensorsError> {
    let mut order: Vec<(&str, usize)> = tensors
        .iter()
        .enumerate()
        .map(|(index, info)| (info.name.as_str(), index))
        .collect();
    order.sort_unstable();
    if let Some(twin) = order.array_windows().find(|[a, b]| a.0 == b.0) {
        return Err(SafetensorsError::DuplicateName {
            name: twin[0].0.into(),
            what: "header",
        });
    }
    Ok(order.into_iter().map(|(_, index)| index).collect())
}

fn check_tiling(tensors: &[TensorInfo], data_len: u64) -> Result<(), SafetensorsError> {
    let mut covered = 0;
    let mut previous: Option<&TensorInfo> = None;
    for info in tensors {
        match previous {
            Some(previous) if info.start < covered => {
                return Err(SafetensorsError::Overlap {
                    tensor: info.name.clone(),
                    start: info.start,
                    previous: previous.name.clone(),
                    previous_end: covered,
                });
            }
            _ if info.start > covered => {
                return Err(SafetensorsError::Hole {
                    tensor: info.name.clone(),
                    start: info.start,
                    expected_start: covered,
                });
            }
            _ => {}
        }
        covered = info.end;
        previous = Some(info);
    }
    if covered < data_len {
        return Err(SafetensorsError::TrailingBytes {
            expected_bytes: covered,
            found_bytes: data_len,
        });
    }
    match tensors.iter().find(|info| info.end > data_len) {
        Some(info) => Err(SafetensorsError::DataTruncated {
            tensor: info.name.clone(),
            expected_bytes: covered,
            found_bytes: data_len,
        }),
        None => Ok(()),
    }
}
