//! Storage that holds nothing.

use crate::request::check_range;
use crate::{Request, Storage, StorageAllocator, StorageError, StorageMemset, StorageType, Uninit};

/// Storage with a size and no memory, for tests of code that moves storage around.
///
/// It has no address, and no bytes that the host could reach.
///
/// ```
/// use core_alloc::{NullDeviceAllocator, Storage, StorageAllocator, StorageType};
///
/// let storage = NullDeviceAllocator.allocate(1024)?;
/// assert_eq!(storage.storage_type(), StorageType::Null);
/// assert!(storage.as_addressable().is_none());
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug)]
pub struct NullDeviceStorage {
    size: usize,
}

impl NullDeviceStorage {
    /// A null storage of `size` bytes.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] for a size of zero or above `isize::MAX`.
    pub fn new(size: usize) -> Result<Self, StorageError> {
        let size = Request::new(size)?.size();
        Ok(Self { size })
    }
}

impl Storage for NullDeviceStorage {
    fn storage_type(&self) -> StorageType {
        StorageType::Null
    }

    fn size(&self) -> usize {
        self.size
    }

    fn as_memset(&mut self) -> Option<&mut dyn StorageMemset> {
        Some(self)
    }
}

impl StorageMemset for NullDeviceStorage {
    /// Checks the range; there is nothing to set.
    fn memset(&mut self, _value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        check_range(offset, len, self.size)
    }
}

/// Hands out [`NullDeviceStorage`].
#[derive(Debug, Clone, Copy, Default)]
pub struct NullDeviceAllocator;

impl StorageAllocator<NullDeviceStorage> for NullDeviceAllocator {
    fn storage_type(&self) -> StorageType {
        StorageType::Null
    }

    fn request(&self, request: Request) -> Result<Uninit<NullDeviceStorage>, StorageError> {
        NullDeviceStorage::new(request.size()).map(Uninit::new)
    }
}
