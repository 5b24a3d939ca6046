//! Reading and writing fixed-width fields.

use super::{FormatError, PAGE_BYTES, crc32c};

/// Takes fields off the front of a slice.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], FormatError> {
        let (field, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(FormatError::Damaged("it ends inside a field"))?;
        self.0 = rest;
        Ok(field)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let field = self.take(N)?;
        field
            .try_into()
            .map_err(|_| FormatError::Damaged("it ends inside a field"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn magic(&mut self, magic: &[u8; 8]) -> Result<(), FormatError> {
        if self.take(8)? == magic {
            Ok(())
        } else {
            Err(FormatError::Damaged("the magic is wrong"))
        }
    }

    pub(super) fn version(&mut self) -> Result<(), FormatError> {
        match self.u32()? {
            0 => Err(FormatError::Damaged("the version is 0")),
            super::VERSION => Ok(()),
            version => Err(FormatError::NewerVersion(version)),
        }
    }
}

/// Pads `fields` to a page and ends it with the checksum.
pub(super) fn seal_page(mut fields: Vec<u8>) -> Vec<u8> {
    fields.resize(PAGE_BYTES - 4, 0);
    let checksum = crc32c(&fields);
    fields.extend_from_slice(&checksum.to_le_bytes());
    fields
}

/// The fields of a page whose checksum is right.
pub(super) fn open_page(page: &[u8]) -> Result<&[u8], FormatError> {
    let short = FormatError::Damaged("it is shorter than a page");
    let page = page.get(..PAGE_BYTES).ok_or(short.clone())?;
    let (fields, checksum) = page.split_last_chunk::<4>().ok_or(short)?;
    if crc32c(fields) != u32::from_le_bytes(*checksum) {
        return Err(FormatError::Damaged("the checksum is wrong"));
    }
    Ok(fields)
}
