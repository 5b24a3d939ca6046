//! Where an encoding is written: memory that may not suffice.

/// The encoding does not fit, so that it is not worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// Fills a buffer of fixed length from its start.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, len: 0 }
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let room = self.rest().get_mut(..bytes.len()).ok_or(Full)?;
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }

    pub(crate) fn put_u32(&mut self, value: usize) -> Result<(), Full> {
        let value = u32::try_from(value).map_err(|_| Full)?;
        self.put(&value.to_le_bytes())
    }

    /// Overwrites four bytes that were written before.
    pub(crate) fn patch_u32(&mut self, at: usize, value: usize) -> Result<(), Full> {
        let value = u32::try_from(value).map_err(|_| Full)?;
        let room = self.bytes.get_mut(at..at + 4).ok_or(Full)?;
        room.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }

    /// The room that is left.
    pub(crate) fn rest(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.len..).unwrap_or_default()
    }

    /// Takes in `len` bytes that were written to [`Sink::rest`].
    pub(crate) fn advance(&mut self, len: usize) {
        self.len = (self.len + len).min(self.bytes.len());
    }

    /// Gives up what was written after `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Gives up what was written from `from` to `to`; what follows moves down.
    pub(crate) fn remove(&mut self, from: usize, to: usize) {
        if from <= to && to <= self.len {
            self.bytes.copy_within(to..self.len, from);
            self.len -= to - from;
        }
    }
}
