//! What can be wrong with an NPY file.

use crate::ViewError;

/// Why an NPY file was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NpyError {
    /// The file does not begin as the format demands.
    #[error("the file does not begin with numpy's magic; it is damaged or no NPY file")]
    NotNpy,
    /// The file ends inside its header.
    #[error(
        "the file ends inside its header: {expected_bytes} bytes expected, {found_bytes} found; \
         fetch the file again"
    )]
    HeaderTruncated {
        /// Bytes up to the end of the header.
        expected_bytes: u64,
        /// Bytes that are there.
        found_bytes: u64,
    },
    /// The header is longer than any that numpy writes.
    #[error(
        "the header claims {claimed_bytes} bytes, more than the limit of {limit_bytes}; \
         the file is damaged"
    )]
    HeaderTooLarge {
        /// Length claimed.
        claimed_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// A version that is not known.
    #[error("the file has the format version {major}, known are 1 to 3; save it again with numpy")]
    Version {
        /// The major version.
        major: u8,
    },
    /// The header is not the dictionary that it has to be.
    #[error("the header {header:?} can't be used: {reason}; save the array again with numpy")]
    Dictionary {
        /// The header's beginning.
        header: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The elements are of a type that tensors don't have.
    #[error(
        "the array has elements of type {descr:?}, which no tensor has; \
         convert it to a plain number type before saving"
    )]
    ElementType {
        /// The type as numpy describes it.
        descr: String,
    },
    /// The size does not fit 64 bits.
    #[error("the size of the array ({shape:?}) overflows; its header is damaged")]
    SizeOverflow {
        /// The shape.
        shape: Vec<u64>,
    },
    /// There are more or fewer bytes than the header says.
    #[error(
        "the array needs {expected_bytes} bytes behind its header and {found_bytes} are there; \
         fetch the file again"
    )]
    DataLength {
        /// Bytes that type and shape need.
        expected_bytes: u64,
        /// Bytes that are there.
        found_bytes: u64,
    },
    /// The elements have the other byte order, so that no view of them can be a tensor.
    #[error(
        "the array's elements are big-endian, which a view can't turn; import the file instead"
    )]
    BigEndian,
    /// A view of the data could not be made.
    #[error(transparent)]
    View(#[from] ViewError),
}
