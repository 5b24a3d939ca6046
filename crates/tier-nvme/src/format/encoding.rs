//! How a value's stored bytes were made from it.

use super::FormatError;

/// A stored value may claim to have been at most this many times as long: a damaged record can't ask for
/// any amount of memory.
pub(crate) const RAW_PER_STORED_MAX: u64 = 256;

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is.
    Raw,
    /// One LZ4 block.
    Lz4,
    /// One Zstandard frame.
    Zstd,
}

impl Encoding {
    /// The byte on disk.
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// The encoding of a byte on disk, if such lengths in bytes can be.
    pub(crate) fn from_byte(
        byte: u8,
        stored_bytes: u64,
        raw_bytes: u64,
    ) -> Result<Self, FormatError> {
        let encoding = match byte {
            0 => Self::Raw,
            1 => Self::Lz4,
            2 => Self::Zstd,
            _ => return Err(FormatError::Damaged("a value's encoding is unknown")),
        };
        let can_be = match encoding {
            Self::Raw => stored_bytes == raw_bytes,
            Self::Lz4 | Self::Zstd => {
                stored_bytes < raw_bytes && raw_bytes / RAW_PER_STORED_MAX <= stored_bytes
            }
        };
        if can_be {
            Ok(encoding)
        } else {
            Err(FormatError::Damaged("a value's lengths can't be"))
        }
    }
}
