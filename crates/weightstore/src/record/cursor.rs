//! Reading and writing fields.

use core_view::DType;

use super::RecordError;

/// The version that is written, and the highest that is read.
const VERSION: u16 = 1;

/// Reads fields off the front of bytes.
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts after the prelude, which must have that magic and no features.
    pub(super) fn open(bytes: &'a [u8], magic: [u8; 4]) -> Result<Self, RecordError> {
        Self::open_with(bytes, magic, 0).map(|(cursor, _)| cursor)
    }

    /// As [`Cursor::open`] for a record that may have the `known` features; returns those that it has.
    pub(super) fn open_with(
        bytes: &'a [u8],
        magic: [u8; 4],
        known: u16,
    ) -> Result<(Self, u16), RecordError> {
        let mut cursor = Self { rest: bytes };
        let found: [u8; 4] = cursor.array()?;
        if found != magic {
            return Err(RecordError::Damaged(format!(
                "it starts with {found:02x?} instead of {magic:02x?}"
            )));
        }
        let version = cursor.u16()?;
        if version > VERSION {
            return Err(RecordError::Newer(format!(
                "its version is {version}, this program reads up to {VERSION}"
            )));
        }
        if version == 0 {
            return Err(RecordError::damaged("its version is 0"));
        }
        match cursor.u16()? {
            bits if bits & !known == 0 => Ok((cursor, bits)),
            bits => Err(RecordError::Newer(format!("it has the features {bits:#x}"))),
        }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], RecordError> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(RecordError::Damaged(format!(
                "it ends early: {len} bytes expected, {} left",
                self.rest.len()
            ))),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, RecordError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, RecordError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of items that take at least `item_len` bytes each, so that it can be allocated for.
    pub(super) fn count(&mut self, item_len: usize) -> Result<usize, RecordError> {
        let count = self.u32()? as usize;
        let needed = count.checked_mul(item_len);
        if needed.is_none_or(|needed| needed > self.rest.len()) {
            // mutant: weights-no-length-check
            return Err(RecordError::Damaged(format!(
                "it claims {count} items of {item_len} bytes, {} bytes are left",
                self.rest.len()
            )));
        }
        Ok(count)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, RecordError> {
        let len = self.count(1)?;
        utf8(self.take(len)?)
    }

    pub(super) fn short_text(&mut self) -> Result<&'a str, RecordError> {
        let len = self.u8()?;
        utf8(self.take(usize::from(len))?)
    }

    pub(super) fn dtype(&mut self) -> Result<DType, RecordError> {
        let name = self.short_text()?;
        DType::from_safetensors_name(name)
            .ok_or_else(|| RecordError::Newer(format!("it has the unknown type {name:?}")))
    }

    pub(super) fn shape(&mut self) -> Result<Vec<u64>, RecordError> {
        let rank = self.count(8)?;
        (0..rank).map(|_| self.u64()).collect()
    }

    pub(super) fn zeros<const N: usize>(&mut self) -> Result<(), RecordError> {
        if self.array::<N>()? == [0; N] {
            Ok(())
        } else {
            Err(RecordError::damaged("reserved bytes are not zero"))
        }
    }

    pub(super) fn end(self) -> Result<(), RecordError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(RecordError::Damaged(format!(
                "{} bytes follow its end",
                self.rest.len()
            )))
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, RecordError> {
    std::str::from_utf8(bytes).map_err(|_| RecordError::damaged("a text is not UTF-8"))
}

/// The prelude of a record without features.
pub(super) fn prelude(magic: [u8; 4]) -> Vec<u8> {
    prelude_with(magic, 0)
}

/// The prelude of a record.
pub(super) fn prelude_with(magic: [u8; 4], features: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&features.to_le_bytes());
    bytes
}

pub(super) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

pub(super) fn put_short_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(text.len() as u8);
    bytes.extend_from_slice(text.as_bytes());
}

pub(super) fn put_shape(bytes: &mut Vec<u8>, shape: &[u64]) {
    bytes.extend_from_slice(&(shape.len() as u32).to_le_bytes());
    for dimension in shape {
        bytes.extend_from_slice(&dimension.to_le_bytes());
    }
}
