//! The contract of everything that hands out storage.

use std::sync::Arc;

use crate::{
    DynAllocator, Erased, Request, Storage, StorageError, StorageMemset, StorageType, Uninit,
};

/// Hands out storage of one type.
///
/// An implementation provides [`storage_type`](StorageAllocator::storage_type) and
/// [`request`](StorageAllocator::request); callers use [`allocate`](StorageAllocator::allocate) and
/// [`allocate_uninit`](StorageAllocator::allocate_uninit). References, boxes and `Arc`s of an
/// allocator are allocators, so that one can be shared by several adaptors.
pub trait StorageAllocator<S: Storage>: Send + Sync {
    /// The kind of what is handed out. The payload of [`StorageType::Disk`] has no meaning here.
    fn storage_type(&self) -> StorageType;

    /// What the address of everything handed out is a multiple of, in bytes: a power of two.
    fn alignment_bytes(&self) -> usize {
        1
    }

    /// Serves a request. What comes back has exactly the requested size.
    ///
    /// # Errors
    /// The reason why the storage can't be had, with the amounts involved.
    fn request(&self, request: Request) -> Result<Uninit<S>, StorageError>;

    /// Allocates `size` bytes whose contents are unspecified.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] for a size of zero or above `isize::MAX`; otherwise as
    /// [`StorageAllocator::request`].
    #[inline]
    fn allocate_uninit(&self, size: usize) -> Result<Uninit<S>, StorageError> {
        self.request(Request::new(size)?)
    }

    /// Allocates `size` bytes, all zero.
    ///
    /// # Errors
    /// As [`StorageAllocator::allocate_uninit`], and whatever the storage's memset reports.
    fn allocate(&self, size: usize) -> Result<S, StorageError>
    where
        S: StorageMemset,
    {
        self.request(Request::new(size)?.prefer_zero())?.zero()
    }

    /// This allocator with the type of its storage erased.
    fn erase(self) -> Box<dyn DynAllocator>
    where
        Self: Sized + 'static,
    {
        Box::new(Erased::new(self))
    }
}

macro_rules! forward {
    ($pointer:ty) => {
        impl<S: Storage, A: StorageAllocator<S> + ?Sized> StorageAllocator<S> for $pointer {
            fn storage_type(&self) -> StorageType {
                (**self).storage_type()
            }

            fn alignment_bytes(&self) -> usize {
                (**self).alignment_bytes()
            }

            fn request(&self, request: Request) -> Result<Uninit<S>, StorageError> {
                (**self).request(request)
            }
        }
    };
}

forward!(&A);
forward!(Box<A>);
forward!(Arc<A>);
