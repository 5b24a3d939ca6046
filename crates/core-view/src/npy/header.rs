//! The header: what an array is, and where its elements begin.

use super::NpyError;
use super::dictionary;
use crate::DType;

/// What every NPY file begins with.
pub const MAGIC: [u8; 6] = *b"\x93NUMPY";

/// The longest header that is read, in bytes; numpy itself reads a sixth of that.
pub const HEADER_LEN_MAX: u64 = 1 << 16;

/// Magic, version, and a length of 2 bytes or 4.
const PREFIX_LEN: u64 = 10;

/// What the header of an NPY file says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NpyHeader {
    /// The type of the elements.
    pub dtype: DType,
    /// Whether their bytes are in the other order than a tensor's, most significant first.
    pub big_endian: bool,
    /// Whether the first index changes fastest (Fortran's order), not the last.
    pub fortran_order: bool,
    /// The lengths of the dimensions; none for a scalar.
    pub shape: Vec<u64>,
    /// Offset of the first element in the file, in bytes.
    pub data_start: u64,
}

impl NpyHeader {
    /// The most bytes at the start of a file that [`NpyHeader::parse`] looks at.
    pub const START_LEN_MAX: u64 = PREFIX_LEN + 2 + HEADER_LEN_MAX;

    /// Reads the header from the start of a file: all of it, or at least
    /// [`START_LEN_MAX`](Self::START_LEN_MAX) bytes.
    ///
    /// # Errors
    /// One variant of [`NpyError`] for each way in which a header can be wrong.
    pub fn parse(start: &[u8]) -> Result<Self, NpyError> {
        let after_magic = start.strip_prefix(&MAGIC).ok_or(NpyError::NotNpy)?;
        let truncated = |expected_bytes: u64| NpyError::HeaderTruncated {
            expected_bytes,
            found_bytes: start.len() as u64,
        };
        let ([major, _minor], rest) = after_magic
            .split_first_chunk()
            .ok_or_else(|| truncated(PREFIX_LEN))?;
        let short = |_: ()| truncated(PREFIX_LEN + 2);
        let (claimed_bytes, rest, prefix) = match major {
            1 => {
                let (len, rest) = rest.split_first_chunk().ok_or(()).map_err(short)?;
                (u64::from(u16::from_le_bytes(*len)), rest, PREFIX_LEN)
            }
            2 | 3 => {
                let (len, rest) = rest.split_first_chunk().ok_or(()).map_err(short)?;
                (u64::from(u32::from_le_bytes(*len)), rest, PREFIX_LEN + 2)
            }
            &major => return Err(NpyError::Version { major }),
        };
        if claimed_bytes > HEADER_LEN_MAX {
            return Err(NpyError::HeaderTooLarge {
                claimed_bytes,
                limit_bytes: HEADER_LEN_MAX,
            });
        }
        let data_start = prefix + claimed_bytes;
        let text = rest
            .get(..claimed_bytes as usize)
            .ok_or_else(|| truncated(data_start))?;
        Self::from_text(text, data_start)
    }

    fn from_text(text: &[u8], data_start: u64) -> Result<Self, NpyError> {
        let refused = |reason| NpyError::Dictionary {
            header: String::from_utf8_lossy(text).chars().take(120).collect(),
            reason,
        };
        let text = std::str::from_utf8(text).map_err(|_| refused("it is not text"))?;
        let dictionary = dictionary::parse(text).map_err(refused)?;
        let Some((dtype, big_endian)) = element_type(&dictionary.descr) else {
            return Err(NpyError::ElementType {
                descr: dictionary.descr.chars().take(80).collect(),
            });
        };
        let header = Self {
            dtype,
            big_endian,
            fortran_order: dictionary.fortran_order,
            shape: dictionary.shape,
            data_start,
        };
        header.checked_len_bytes()?;
        Ok(header)
    }

    fn checked_len_bytes(&self) -> Result<u64, NpyError> {
        // A zero does not excuse dimensions that overflow without it.
        let elements = self
            .shape
            .iter()
            .try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        elements
            .and_then(|elements| elements.checked_mul(self.dtype.bits() as u64 / 8))
            .filter(|len| self.data_start.checked_add(*len).is_some())
            .ok_or_else(|| NpyError::SizeOverflow {
                shape: self.shape.clone(),
            })
    }

    /// Length of all elements in bytes.
    pub fn len_bytes(&self) -> u64 {
        // Checked when the header was read.
        self.checked_len_bytes().unwrap_or(u64::MAX)
    }

    /// Compares the length of the whole file with what the header says.
    ///
    /// # Errors
    /// [`NpyError::DataLength`].
    pub fn check_file_len(&self, file_len: u64) -> Result<(), NpyError> {
        let found_bytes = file_len.saturating_sub(self.data_start);
        let expected_bytes = self.len_bytes();
        match found_bytes == expected_bytes {
            true => Ok(()),
            false => Err(NpyError::DataLength {
                expected_bytes,
                found_bytes,
            }),
        }
    }
}

/// The type that numpy describes so, and whether it is big-endian; `None` for what no tensor has.
fn element_type(descr: &str) -> Option<(DType, bool)> {
    let (order, kind) = descr.split_at_checked(1)?;
    let (big_endian, kind) = match order {
        "<" | "=" | "|" => (false, kind),
        ">" => (true, kind),
        _ => (false, descr),
    };
    let dtype = match kind {
        "b1" | "?" => DType::Bool,
        "u1" => DType::U8,
        "i1" => DType::I8,
        "u2" => DType::U16,
        "i2" => DType::I16,
        "u4" => DType::U32,
        "i4" => DType::I32,
        "u8" => DType::U64,
        "i8" => DType::I64,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "c8" => DType::C64,
        _ => return None,
    };
    Some((dtype, big_endian && dtype.bits() > 8))
}
