//! Storage whose bytes have no value yet.

use crate::{Storage, StorageError, StorageMemset, StorageType};

/// A storage whose contents are unspecified: fresh from the system or recycled from a pool.
///
/// It becomes an `S` only by being filled, or by a promise in `unsafe` code.
#[derive(Debug)]
pub struct Uninit<S: Storage>(S);

impl<S: Storage> Uninit<S> {
    /// Wraps a storage whose contents are unspecified.
    pub fn new(storage: S) -> Self {
        Self(storage)
    }

    /// The kind of the storage.
    pub fn storage_type(&self) -> StorageType {
        self.0.storage_type()
    }

    /// The size in bytes.
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// Sets every byte to zero.
    ///
    /// # Errors
    /// Whatever the storage's own memset reports; the storage is given back to its allocator then.
    pub fn zero(self) -> Result<S, StorageError>
    where
        S: StorageMemset,
    {
        let mut storage = self.0;
        let len = storage.size();
        storage.memset(0, 0, len)?;
        Ok(storage)
    }

    /// Takes the storage as it is.
    ///
    /// # Safety
    /// Every byte must have been written since the allocation, or the storage must be of a kind whose
    /// bytes are never uninitialised in the language's sense (recycled, mapped or foreign memory).
    pub unsafe fn assume_init(self) -> S {
        self.0
    }
}
