//! Allocators and storage with their types erased.

use std::fmt;
use std::marker::PhantomData;

use crate::{
    AddressableStorage, HostStorage, Request, Storage, StorageAllocator, StorageError,
    StorageMemset, StorageType, Uninit,
};

/// Storage of a type that is not known, which can still reveal what it can do.
///
/// [`Storage::as_host`] and its siblings find out whether it has bytes that the host can reach.
#[derive(Debug)]
pub struct DynStorage(Box<dyn Storage>);

impl DynStorage {
    /// Erases the type of a storage.
    pub fn new<S: Storage>(storage: S) -> Self {
        Self(Box::new(storage))
    }
}

impl Storage for DynStorage {
    fn storage_type(&self) -> StorageType {
        self.0.storage_type()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn as_addressable(&self) -> Option<&dyn AddressableStorage> {
        self.0.as_addressable()
    }

    fn as_host(&self) -> Option<&dyn HostStorage> {
        self.0.as_host()
    }

    fn as_host_mut(&mut self) -> Option<&mut dyn HostStorage> {
        self.0.as_host_mut()
    }

    fn as_memset(&mut self) -> Option<&mut dyn StorageMemset> {
        self.0.as_memset()
    }
}

impl StorageMemset for DynStorage {
    /// Fails with [`StorageError::NotAccessible`] if the storage inside can't be set.
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        let kind = self.storage_type();
        match self.0.as_memset() {
            Some(storage) => storage.memset(value, offset, len),
            None => Err(StorageError::NotAccessible {
                kind,
                how: "by memset",
            }),
        }
    }
}

/// An allocator whose storage type is erased, for `Box<dyn DynAllocator>`.
///
/// Every [`StorageAllocator`] becomes one by [`StorageAllocator::erase`], and a `dyn DynAllocator` is
/// a `StorageAllocator<DynStorage>` again, so that the adaptors compose over it.
///
/// ```
/// use core_alloc::{DynAllocator, Limit, Storage, StorageAllocator, SystemAllocator};
///
/// let tiers: Vec<Box<dyn DynAllocator>> = vec![
///     SystemAllocator.erase(),
///     Limit::new(SystemAllocator, 1 << 20).erase(),
/// ];
/// for tier in &tiers {
///     let storage = tier.allocate(4096)?;
///     let host = storage.as_host().ok_or("not reachable from the host")?;
///     assert_eq!(host.as_slice()[4095], 0);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait DynAllocator: Send + Sync {
    /// As [`StorageAllocator::storage_type`].
    fn dyn_storage_type(&self) -> StorageType;

    /// As [`StorageAllocator::alignment_bytes`].
    fn dyn_alignment_bytes(&self) -> usize;

    /// As [`StorageAllocator::request`].
    ///
    /// # Errors
    /// As [`StorageAllocator::request`].
    fn dyn_request(&self, request: Request) -> Result<Uninit<DynStorage>, StorageError>;
}

impl StorageAllocator<DynStorage> for dyn DynAllocator {
    fn storage_type(&self) -> StorageType {
        self.dyn_storage_type()
    }

    fn alignment_bytes(&self) -> usize {
        self.dyn_alignment_bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<DynStorage>, StorageError> {
        self.dyn_request(request)
    }
}

/// The bridge from a [`StorageAllocator`] to a [`DynAllocator`].
pub struct Erased<A, S> {
    allocator: A,
    storage: PhantomData<fn() -> S>,
}

impl<A, S> Erased<A, S> {
    /// Wraps `allocator`.
    pub fn new(allocator: A) -> Self {
        Self {
            allocator,
            storage: PhantomData,
        }
    }
}

impl<A: fmt::Debug, S> fmt::Debug for Erased<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Erased").field(&self.allocator).finish()
    }
}

impl<A: StorageAllocator<S>, S: Storage> DynAllocator for Erased<A, S> {
    fn dyn_storage_type(&self) -> StorageType {
        self.allocator.storage_type()
    }

    fn dyn_alignment_bytes(&self) -> usize {
        self.allocator.alignment_bytes()
    }

    fn dyn_request(&self, request: Request) -> Result<Uninit<DynStorage>, StorageError> {
        let storage = self.allocator.request(request)?;
        // SAFETY: erasing reads nothing and covers the same bytes.
        Ok(unsafe { storage.map(DynStorage::new) })
    }
}
