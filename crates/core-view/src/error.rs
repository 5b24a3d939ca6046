//! The error of buffers, views and tensors.

use std::io::ErrorKind::NotFound;

use core_alloc::StorageError;

use crate::contract::{ContractError, ErrorKind};
use crate::{DType, Device};

/// What a view or a tensor could not do, as facts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// A byte range lies outside a storage.
    #[error(
        "range of {len_bytes} bytes at offset {offset_bytes} lies outside a storage of {size_bytes} bytes"
    )]
    OutOfBounds {
        /// Start of the range, in bytes.
        offset_bytes: usize,
        /// Length of the range, in bytes.
        len_bytes: usize,
        /// Size of the storage, in bytes.
        size_bytes: usize,
    },
    /// Somebody else holds the same memory, so it can't be written.
    #[error(
        "the memory is shared by {holders} holders; drop the others, or write to a copy (deep_clone, make_mut)"
    )]
    Shared {
        /// How many held it when that was checked.
        holders: usize,
    },
    /// The memory may never be written.
    #[error("the memory is read-only; write to a copy (deep_clone, make_mut)")]
    ReadOnly,
    /// Elements of the tensor may share memory, so that writing one would change another.
    #[error(
        "elements of a tensor of shape {shape:?} may overlap in memory; write to a copy (deep_clone)"
    )]
    Overlapping {
        /// Shape of the tensor.
        shape: Vec<usize>,
    },
    /// The first byte is not where elements of that type may start.
    #[error(
        "address {address:#x} is not a multiple of {required_bytes} bytes, as elements of type {dtype} need; \
         make an aligned copy (deep_clone)"
    )]
    Misaligned {
        /// The address of the first byte.
        address: usize,
        /// Alignment needed, in bytes.
        required_bytes: usize,
        /// Type of the elements asked for.
        dtype: DType,
    },
    /// The bytes are not a whole number of elements.
    #[error("{len_bytes} bytes are not a whole number of elements of type {dtype}")]
    PartialElement {
        /// Length in bytes.
        len_bytes: usize,
        /// Type of the elements asked for.
        dtype: DType,
    },
    /// A packed tensor does not start or end at a byte.
    #[error(
        "a tensor of {elements} elements of type {dtype} at element {offset_elements} does not cover whole bytes; \
         choose a range whose bits are a multiple of 8"
    )]
    PartialByte {
        /// Type of the elements.
        dtype: DType,
        /// Number of elements.
        elements: usize,
        /// Index of the first element in the storage.
        offset_elements: usize,
    },
    /// A byte is no value of the type.
    #[error(
        "byte {value:#04x} at offset {offset_bytes} is no value of type {dtype}; view the bytes as U8"
    )]
    InvalidValue {
        /// Type of the elements asked for.
        dtype: DType,
        /// Offset of the byte in the view.
        offset_bytes: usize,
        /// The byte.
        value: u8,
    },
    /// A number does not fit in the type that was asked for.
    #[error("element {index} ({value}) can't be represented as {dtype}; choose a wider type")]
    Unrepresentable {
        /// Index of the element.
        index: usize,
        /// The number, as text.
        value: String,
        /// Type asked for.
        dtype: DType,
    },
    /// The elements have another type than was asked for.
    #[error("the tensor's elements are {found}, not {expected}; ask for {found} or convert first")]
    DTypeMismatch {
        /// Type asked for.
        expected: DType,
        /// Type of the tensor.
        found: DType,
    },
    /// Two shapes that must be equal differ.
    #[error("shape {found:?} where {expected:?} is needed; reshape or broadcast one of them")]
    ShapeMismatch {
        /// Shape needed.
        expected: Vec<usize>,
        /// Shape given.
        found: Vec<usize>,
    },
    /// A shape and a length do not belong together.
    #[error(
        "a shape of {elements} elements of type {dtype} does not fit {len_bytes} bytes of data"
    )]
    LengthMismatch {
        /// Type of the elements.
        dtype: DType,
        /// Number of elements that the shape has.
        elements: usize,
        /// Length of the data in bytes.
        len_bytes: usize,
    },
    /// More dimensions than a tensor can have.
    #[error("rank {rank} is more than the {rank_max} that a tensor can have; merge dimensions")]
    RankTooHigh {
        /// Rank asked for.
        rank: usize,
        /// Highest rank possible.
        rank_max: usize,
    },
    /// A dimension that the tensor does not have.
    #[error("dimension {dim} of a tensor of rank {rank}; dimensions count from 0")]
    NoSuchDimension {
        /// Dimension asked for.
        dim: usize,
        /// Rank of the tensor.
        rank: usize,
    },
    /// Another number of indices than dimensions.
    #[error("{indices} indices for a tensor of rank {rank}; give one for each dimension")]
    IndexCountMismatch {
        /// Number of indices.
        indices: usize,
        /// Rank of the tensor.
        rank: usize,
    },
    /// Another number of strides than dimensions.
    #[error("{strides} strides for a shape of rank {rank}; give one for each dimension")]
    StrideCountMismatch {
        /// Number of strides.
        strides: usize,
        /// Rank of the shape.
        rank: usize,
    },
    /// Values of one type can't be made into the other.
    #[error(
        "values of type {from} can't be converted to {to}; give the bits as the storage of a tensor"
    )]
    NotConvertible {
        /// Type of the values.
        from: DType,
        /// Type asked for.
        to: DType,
    },
    /// A list of dimensions that is not each of the tensor's dimensions once.
    #[error("{dims:?} does not name each of the {rank} dimensions once")]
    NotAPermutation {
        /// The list.
        dims: Vec<usize>,
        /// Rank of the tensor.
        rank: usize,
    },
    /// An index or range past the end of a dimension.
    #[error("range {start}..{end} lies outside dimension {dim} of length {len}")]
    RangeOutOfBounds {
        /// Dimension.
        dim: usize,
        /// Start of the range.
        start: usize,
        /// End of the range.
        end: usize,
        /// Length of the dimension.
        len: usize,
    },
    /// A step of zero.
    #[error("a step of 0 selects nothing; use 1 for every element or -1 for reverse order")]
    ZeroStep,
    /// A dimension of another length than 1 can't be dropped.
    #[error(
        "dimension {dim} has length {len}, not 1, and can't be dropped; select an index instead"
    )]
    NotSqueezable {
        /// Dimension.
        dim: usize,
        /// Length of the dimension.
        len: usize,
    },
    /// A shape that the tensor's shape can't be repeated to.
    #[error(
        "shape {from:?} can't be broadcast to {to:?}; lengths must be equal or 1, from the last dimension on"
    )]
    NotBroadcastable {
        /// Shape of the tensor.
        from: Vec<usize>,
        /// Shape asked for.
        to: Vec<usize>,
    },
    /// The number of elements changes.
    #[error("shape {from:?} has another number of elements than {to:?}")]
    ElementCountMismatch {
        /// Shape of the tensor.
        from: Vec<usize>,
        /// Shape asked for.
        to: Vec<usize>,
    },
    /// The operation is not possible without moving elements.
    #[error("{operation} of a tensor of shape {shape:?} needs a copy; call contiguous() first")]
    NeedsCopy {
        /// The operation.
        operation: &'static str,
        /// Shape of the tensor.
        shape: Vec<usize>,
    },
    /// A number of elements or bytes does not fit the machine's address space.
    #[error("the size of shape {shape:?} with elements of type {dtype} overflows")]
    SizeOverflow {
        /// Lengths of the dimensions.
        shape: Vec<u64>,
        /// Type of the elements.
        dtype: DType,
    },
    /// Strides or an offset that lead outside the storage.
    #[error(
        "a tensor of shape {shape:?} at element {offset_elements} reaches outside its storage of {size_bytes} bytes"
    )]
    LayoutOutOfBounds {
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// Index of the first element.
        offset_elements: usize,
        /// Size of the storage, in bytes.
        size_bytes: usize,
    },
    /// A name that is no element type.
    #[error("{name:?} is no element type; known are {}", known_dtypes())]
    UnknownDType {
        /// The name.
        name: String,
    },
    /// A name that is no device.
    #[error("{name:?} is no device; write \"cpu\", \"cuda\" or \"cuda:N\"")]
    UnknownDevice {
        /// The name.
        name: String,
    },
    /// A device that tensors of this crate can't live on.
    #[error("tensors can't be placed on {device} here; available: {available}")]
    UnsupportedDevice {
        /// Device asked for.
        device: Device,
        /// The devices that exist.
        available: &'static str,
    },
    /// Memory could not be allocated.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another process holds the file locked for writing.
    #[error("{} is locked for writing by somebody else; wait until it is closed", path.display())]
    FileLocked {
        /// The file.
        path: std::path::PathBuf,
    },
    /// The operating system refused an operation on a file.
    #[error("could not {operation} {}", path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// A tensor from another library can't be taken over.
    #[error("the foreign tensor can't be taken over: {reason}")]
    Foreign {
        /// Why not, with the value at fault.
        reason: String,
    },
}

impl From<ViewError> for ContractError {
    fn from(error: ViewError) -> Self {
        let kind = match error {
            ViewError::Storage(error) => return error.into(),
            ViewError::Shared { .. } | ViewError::FileLocked { .. } => ErrorKind::Busy,
            ViewError::File { ref source, .. } if source.kind() == NotFound => ErrorKind::NotFound,
            ViewError::File { .. } => ErrorKind::Io,
            ViewError::ReadOnly
            | ViewError::Overlapping { .. }
            | ViewError::NeedsCopy { .. }
            | ViewError::NotConvertible { .. }
            | ViewError::UnsupportedDevice { .. }
            | ViewError::Foreign { .. } => ErrorKind::Unsupported,
            ViewError::InvalidValue { .. } => ErrorKind::Corrupt,
            _ => ErrorKind::InvalidInput,
        };
        Self::new(kind, "view memory")
            .detail(error.to_string())
            .source(error)
    }
}

fn known_dtypes() -> String {
    DType::all()
        .map(DType::safetensors_name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_error_says_what_to_do_next() {
        let contract = ContractError::from(ViewError::Shared { holders: 2 });
        assert_eq!(contract.kind(), ErrorKind::Busy);
        assert!(contract.to_string().contains("2 holders"), "{contract}");
        let missing = ViewError::File {
            operation: "open",
            path: "absent".into(),
            source: std::io::Error::from(NotFound),
        };
        assert_eq!(ContractError::from(missing).kind(), ErrorKind::NotFound);
        let storage = ViewError::Storage(StorageError::Injected {
            nth: 1,
            requested_bytes: 8,
        });
        assert_eq!(ContractError::from(storage).kind(), ErrorKind::NoSpace);
    }
}
