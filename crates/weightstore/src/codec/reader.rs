//! Reading an encoding whose every byte may be hostile.

use super::chunk::DecodeError;

/// What is left of an encoding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| {
            DecodeError::damaged(format!(
                "it ends {} bytes early",
                len.saturating_sub(self.rest.len())
            ))
        })?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        taken
            .try_into()
            .map_err(|_| DecodeError::damaged("it ends early"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<usize, DecodeError> {
        let value = u32::from_le_bytes(self.array()?);
        usize::try_from(value).map_err(|_| DecodeError::damaged("a length is beyond memory"))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reserved bytes.
    pub(crate) fn zeros<const N: usize>(&mut self) -> Result<(), DecodeError> {
        match self.array::<N>()?.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(DecodeError::damaged("a reserved byte is not zero")),
        }
    }

    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::damaged(format!(
                "{left} bytes are left at its end"
            ))),
        }
    }
}
