//! What can be wrong with a safetensors file.

use crate::{DType, ViewError};

/// Why a safetensors file, header or index was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// Reading failed.
    #[error("could not read the safetensors {what}")]
    Io {
        /// The part that was being read.
        what: &'static str,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// There is not even room for the header's length.
    #[error(
        "the file has {found_bytes} bytes and a safetensors file starts with a length of 8; \
         it is empty, truncated or no safetensors file"
    )]
    TooShort {
        /// Bytes found.
        found_bytes: u64,
    },
    /// The header is longer than the format allows.
    #[error(
        "the header claims {claimed_bytes} bytes, more than the limit of {limit_bytes}; \
         this is no safetensors file or it is damaged"
    )]
    HeaderTooLarge {
        /// Length claimed.
        claimed_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The file ends inside its header.
    #[error(
        "the file ends inside its header: {expected_bytes} bytes expected, {found_bytes} found; \
         fetch the file again"
    )]
    HeaderTruncated {
        /// Length claimed.
        expected_bytes: u64,
        /// Bytes that follow the length.
        found_bytes: u64,
    },
    /// The header is not text.
    #[error(
        "the header is not UTF-8 at byte {offset_bytes}; the file is damaged or no safetensors file"
    )]
    NotUtf8 {
        /// Offset in the header of the first byte at fault.
        offset_bytes: usize,
    },
    /// The header does not start with a brace.
    #[error("the header must start with '{{'; this is no safetensors file or it is damaged")]
    NotAnObject,
    /// The header's text is not the JSON that the format demands.
    #[error("the {what} is not what the format demands; write the file again")]
    Json {
        /// The part at fault.
        what: &'static str,
        /// What the JSON parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A name occurs twice.
    #[error("the name {name:?} occurs twice in the {what}; rename one of the two")]
    DuplicateName {
        /// The name.
        name: String,
        /// Where it occurs.
        what: &'static str,
    },
    /// A tensor has a type that the format lacks.
    #[error(
        "tensor {tensor:?} has the unknown type {dtype:?}; known are {}",
        known_dtypes()
    )]
    UnknownDType {
        /// The tensor.
        tensor: String,
        /// Its type's name.
        dtype: String,
    },
    /// A tensor's size does not fit 64 bits.
    #[error("the size of tensor {tensor:?} ({dtype} {shape:?}) overflows; its shape is damaged")]
    SizeOverflow {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// A packed tensor is not a whole number of bytes.
    #[error(
        "tensor {tensor:?} ({dtype} {shape:?}) has {bits} bits, not a whole number of bytes; pad its shape"
    )]
    PartialByte {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Its shape.
        shape: Vec<u64>,
        /// Its size in bits.
        bits: u64,
    },
    /// A range ends before it starts.
    #[error(
        "tensor {tensor:?} ends at byte {end} before its start {start}; its offsets are damaged"
    )]
    InvertedRange {
        /// The tensor.
        tensor: String,
        /// Start in the data section, in bytes.
        start: u64,
        /// End in the data section, in bytes.
        end: u64,
    },
    /// A range has another length than type and shape demand.
    #[error(
        "tensor {tensor:?} ({dtype} {shape:?}) needs {expected_bytes} bytes but its range has {found_bytes}; \
         its type, shape or offsets are damaged"
    )]
    SizeMismatch {
        /// The tensor.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Its shape.
        shape: Vec<u64>,
        /// Bytes that type and shape need.
        expected_bytes: u64,
        /// Bytes that the range has.
        found_bytes: u64,
    },
    /// Two tensors claim the same bytes.
    #[error(
        "tensor {tensor:?} starts at byte {start}, inside tensor {previous:?} that ends at {previous_end}; \
         the offsets are damaged"
    )]
    Overlap {
        /// The tensor that starts later.
        tensor: String,
        /// Its start in the data section, in bytes.
        start: u64,
        /// The tensor before it.
        previous: String,
        /// The end of the tensor before it, in bytes.
        previous_end: u64,
    },
    /// Bytes belong to no tensor.
    #[error(
        "tensor {tensor:?} starts at byte {start} and the data before it ends at {expected_start}; \
         the format allows no hole"
    )]
    Hole {
        /// The tensor after the hole.
        tensor: String,
        /// Its start in the data section, in bytes.
        start: u64,
        /// Where it should start.
        expected_start: u64,
    },
    /// The data section ends early.
    #[error(
        "the file is truncated: tensor {tensor:?} needs a data section of {expected_bytes} bytes and \
         {found_bytes} are there; fetch the file again"
    )]
    DataTruncated {
        /// The first tensor that is not whole.
        tensor: String,
        /// Bytes that the header's ranges cover.
        expected_bytes: u64,
        /// Bytes in the data section.
        found_bytes: u64,
    },
    /// Bytes follow the last tensor.
    #[error(
        "the tensors end at byte {expected_bytes} of the data section and {found_bytes} are there; \
         the format allows no trailing bytes"
    )]
    TrailingBytes {
        /// Bytes that the header's ranges cover.
        expected_bytes: u64,
        /// Bytes in the data section.
        found_bytes: u64,
    },
    /// A name that the format keeps for itself.
    #[error("a tensor can't be called {name:?}, which the format reserves; rename it")]
    ReservedName {
        /// The name.
        name: String,
    },
    /// No tensor of that name.
    #[error("no tensor is called {name:?}")]
    NoSuchTensor {
        /// The name.
        name: String,
    },
    /// A shard's name leads out of the model's folder.
    #[error(
        "tensor {tensor:?} is in {shard:?}, which is not the name of a file beside the index; \
         the index is damaged or hostile"
    )]
    ShardName {
        /// The tensor.
        tensor: String,
        /// The shard's name.
        shard: String,
    },
    /// A view of the data could not be made.
    #[error(transparent)]
    View(#[from] ViewError),
}

fn known_dtypes() -> String {
    DType::all()
        .map(DType::safetensors_name)
        .collect::<Vec<_>>()
        .join(", ")
}
