//! Values whose checksum is taken before they are written.

use std::ops::Deref;

use core_view::BufferMut;

use crate::format::crc32c;

/// A value with its checksum, of which nobody can change a byte.
///
/// Who writes a batch takes the checksums of its values, one after the other, from memory that none of them has been
/// near for a while. Who makes values on threads of his own takes them there, while the bytes are in reach: one value made
/// and checked after the other, on as many threads as there are.
///
/// The checksum is taken here and nowhere else, from bytes that are owned from then on: there is no way to hand in one that
/// belongs to others.
///
/// ```
/// use tier_nvme::{CheckedValue, NvmeStore, StorageConfig, WriteBatch};
///
/// let directory = tempfile::tempdir()?;
/// let store = NvmeStore::new(directory.path(), StorageConfig::default())?;
/// let values = ["one", "two"].map(|key| {
///     std::thread::spawn(move || (key, CheckedValue::new(key.repeat(5000).into_bytes())))
/// });
/// let mut batch = WriteBatch::new();
/// for value in values {
///     let (key, value) = value.join().map_err(|_| "panicked")?;
///     batch = batch.put_checked(key, value);
/// }
/// store.write_batch(batch)?;
/// assert_eq!(store.read_direct("two")?.map(|value| value.len()), Some(15_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct CheckedValue {
    bytes: BufferMut,
    checksum: u32,
}

impl CheckedValue {
    /// Takes the checksum of a value.
    pub fn new(value: impl Into<BufferMut>) -> Self {
        let bytes = value.into();
        let checksum = crc32c(&bytes);
        Self { bytes, checksum }
    }

    /// Gives the checksum up, and the bytes back.
    pub fn into_inner(self) -> BufferMut {
        self.bytes
    }

    pub(super) fn into_parts(self) -> (BufferMut, u32) {
        (self.bytes, self.checksum)
    }
}

impl Deref for CheckedValue {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
