//! Storage whose bytes have no value yet.

use std::fmt;
use std::mem::MaybeUninit;

use crate::{HostStorage, Storage, StorageError, StorageMemset, StorageType};

/// A storage whose contents are unspecified: fresh from the system or recycled from a pool.
///
/// It becomes an `S` only by being filled, or by a promise in `unsafe` code.
///
/// ```
/// use core_alloc::{HostStorage, StorageAllocator, SystemAllocator};
///
/// let fresh = SystemAllocator::default().allocate_uninit(5)?;
/// let filled = fresh.copy_from(b"bytes")?;
/// assert_eq!(filled.as_slice(), b"bytes");
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
pub struct Uninit<S: Storage> {
    storage: S,
    zeroed: bool,
}

/// Leaves the storage's own `Debug` out, which may show bytes.
impl<S: Storage> fmt::Debug for Uninit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uninit")
            .field("kind", &self.storage_type())
            .field("size", &self.size())
            .field("zeroed", &self.zeroed)
            .finish()
    }
}

impl<S: Storage> Uninit<S> {
    /// Wraps a storage whose contents are unspecified.
    #[inline]
    pub fn new(storage: S) -> Self {
        Self {
            storage,
            zeroed: false,
        }
    }

    /// Wraps a storage whose bytes are known to be zero, so that zeroing it costs nothing.
    ///
    /// # Safety
    /// Every byte of the storage must be initialised and zero.
    pub unsafe fn new_zeroed(storage: S) -> Self {
        Self {
            storage,
            zeroed: true,
        }
    }

    /// The kind of the storage.
    pub fn storage_type(&self) -> StorageType {
        self.storage.storage_type()
    }

    /// The size in bytes.
    pub fn size(&self) -> usize {
        self.storage.size()
    }

    /// The first byte's address, where the storage has one.
    pub fn address(&self) -> Option<u64> {
        self.storage
            .as_addressable()
            .map(|addressable| addressable.addr())
    }

    /// Whether the bytes are known to be zero already.
    pub fn is_zeroed(&self) -> bool {
        self.zeroed
    }

    /// Sets every byte to zero, unless they are known to be.
    ///
    /// # Errors
    /// Whatever the storage's own memset reports; the storage is given back to its allocator then.
    pub fn zero(self) -> Result<S, StorageError>
    where
        S: StorageMemset,
    {
        let mut storage = self.storage;
        if !self.zeroed {
            let len = storage.size();
            storage.memset(0, 0, len)?;
        }
        Ok(storage)
    }

    /// Fills the storage with `bytes`.
    ///
    /// # Errors
    /// [`StorageError::OutOfBounds`] if `bytes` has another length than the storage.
    pub fn copy_from(mut self, bytes: &[u8]) -> Result<S, StorageError>
    where
        S: HostStorage,
    {
        if bytes.len() != self.size() {
            return Err(StorageError::OutOfBounds {
                offset_bytes: 0,
                len_bytes: bytes.len(),
                size_bytes: self.size(),
            });
        }
        self.as_uninit_slice().write_copy_of_slice(bytes);
        Ok(self.storage)
    }

    /// The bytes, to be written before [`Uninit::assume_init`].
    pub fn as_uninit_slice(&mut self) -> &mut [MaybeUninit<u8>]
    where
        S: HostStorage,
    {
        self.zeroed = false;
        let len = self.storage.size();
        let pointer = self.storage.as_mut_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: the contract of `HostStorage` makes the pointer valid for `size` bytes that are this
        // value's alone; `MaybeUninit` asks nothing of their contents.
        unsafe { std::slice::from_raw_parts_mut(pointer, len) }
    }

    /// Takes the storage as it is.
    ///
    /// # Safety
    /// Every byte must have been written since the allocation, or the storage must be of a kind whose
    /// bytes are never uninitialised in the language's sense (mapped, device or foreign memory).
    pub unsafe fn assume_init(self) -> S {
        self.storage
    }

    /// Wraps the storage into another one, as adaptors do.
    ///
    /// # Errors
    /// What `wrap` reports.
    ///
    /// # Safety
    /// `wrap` must not read the bytes nor let anyone else do so, and its result must cover bytes of
    /// the storage alone.
    pub unsafe fn try_map<T: Storage, E>(
        self,
        wrap: impl FnOnce(S) -> Result<T, E>,
    ) -> Result<Uninit<T>, E> {
        Ok(Uninit {
            storage: wrap(self.storage)?,
            zeroed: self.zeroed,
        })
    }

    /// As [`Uninit::try_map`], for a wrapping that can't fail.
    ///
    /// # Safety
    /// As [`Uninit::try_map`].
    pub unsafe fn map<T: Storage>(self, wrap: impl FnOnce(S) -> T) -> Uninit<T> {
        Uninit {
            storage: wrap(self.storage),
            zeroed: self.zeroed,
        }
    }
}
