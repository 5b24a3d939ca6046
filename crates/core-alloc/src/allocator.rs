//! The contract of everything that hands out storage.

use crate::{Storage, StorageError, StorageMemset, Uninit};

/// Hands out storage of one type.
pub trait StorageAllocator<S: Storage>: Send + Sync {
    /// Allocates `size` bytes whose contents are unspecified.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] for a size of zero or one that can't be rounded up;
    /// otherwise the reason why the memory can't be had, with the amounts involved.
    fn allocate_uninit(&self, size: usize) -> Result<Uninit<S>, StorageError>;

    /// Allocates `size` bytes, all zero.
    ///
    /// # Errors
    /// As [`StorageAllocator::allocate_uninit`].
    fn allocate(&self, size: usize) -> Result<S, StorageError>
    where
        S: StorageMemset,
    {
        self.allocate_uninit(size)?.zero()
    }
}
