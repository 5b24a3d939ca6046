//! A second choice when the first has no memory.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    AddressableStorage, HostStorage, Request, Storage, StorageAllocator, StorageError,
    StorageMemset, StorageType, Uninit,
};

/// Storage from one of two allocators.
#[derive(Debug)]
pub enum Either<S, T> {
    /// From the first choice.
    Primary(S),
    /// From the fallback.
    Secondary(T),
}

/// Asks a second allocator when the first has no memory.
///
/// Any other failure of the first, such as a wrong size, is reported as it is. Falling back is
/// counted.
///
/// ```
/// use core_alloc::{Either, Fallback, Limit, StorageAllocator, SystemAllocator};
///
/// let fallback = Fallback::new(Limit::new(SystemAllocator, 100), SystemAllocator);
/// assert!(matches!(fallback.allocate(100)?, Either::Primary(_)));
/// assert!(matches!(fallback.allocate(101)?, Either::Secondary(_)));
/// assert_eq!(fallback.fallbacks(), 1);
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug)]
pub struct Fallback<A, B> {
    primary: A,
    secondary: B,
    fallbacks: AtomicU64,
}

impl<A, B> Fallback<A, B> {
    /// Asks `primary` first, then `secondary`.
    pub fn new(primary: A, secondary: B) -> Self {
        Self {
            primary,
            secondary,
            fallbacks: AtomicU64::new(0),
        }
    }

    /// How often the second allocator served a request.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Acquire)
    }

    /// The first choice.
    pub fn primary(&self) -> &A {
        &self.primary
    }

    /// The second choice.
    pub fn secondary(&self) -> &B {
        &self.secondary
    }
}

impl<S, T, A, B> StorageAllocator<Either<S, T>> for Fallback<A, B>
where
    S: Storage,
    T: Storage,
    A: StorageAllocator<S>,
    B: StorageAllocator<T>,
{
    /// The kind of the first choice.
    fn storage_type(&self) -> StorageType {
        self.primary.storage_type()
    }

    fn alignment_bytes(&self) -> usize {
        self.primary
            .alignment_bytes()
            .min(self.secondary.alignment_bytes())
    }

    fn request(&self, request: Request) -> Result<Uninit<Either<S, T>>, StorageError> {
        let primary = match self.primary.request(request) {
            // SAFETY: the variant reads nothing and covers the same bytes.
            Ok(storage) => return Ok(unsafe { storage.map(Either::Primary) }),
            Err(error) if error.is_out_of_memory() => error,
            Err(error) => return Err(error),
        };
        match self.secondary.request(request) {
            Ok(storage) => {
                self.fallbacks.fetch_add(1, Ordering::AcqRel);
                // SAFETY: the variant reads nothing and covers the same bytes.
                Ok(unsafe { storage.map(Either::Secondary) })
            }
            Err(secondary) => Err(StorageError::FallbackFailed {
                primary: Box::new(primary),
                secondary: Box::new(secondary),
            }),
        }
    }
}

macro_rules! either {
    ($value:expr, $storage:ident => $result:expr) => {
        match $value {
            Either::Primary($storage) => $result,
            Either::Secondary($storage) => $result,
        }
    };
}

impl<S: Storage, T: Storage> Storage for Either<S, T> {
    fn storage_type(&self) -> StorageType {
        either!(self, storage => storage.storage_type())
    }

    fn size(&self) -> usize {
        either!(self, storage => storage.size())
    }

    fn as_addressable(&self) -> Option<&dyn AddressableStorage> {
        either!(self, storage => storage.as_addressable())
    }

    fn as_host(&self) -> Option<&dyn HostStorage> {
        either!(self, storage => storage.as_host())
    }

    fn as_host_mut(&mut self) -> Option<&mut dyn HostStorage> {
        either!(self, storage => storage.as_host_mut())
    }

    fn as_memset(&mut self) -> Option<&mut dyn StorageMemset> {
        either!(self, storage => storage.as_memset())
    }
}

// SAFETY: both variants uphold the contract, and a value stays in its variant: nothing here changes
// it, and a caller who replaces the value ends the storage's life.
unsafe impl<S: AddressableStorage, T: AddressableStorage> AddressableStorage for Either<S, T> {
    fn addr(&self) -> u64 {
        either!(self, storage => storage.addr())
    }
}

// SAFETY: as for `AddressableStorage`.
unsafe impl<S: HostStorage, T: HostStorage> HostStorage for Either<S, T> {
    fn as_ptr(&self) -> *const u8 {
        either!(self, storage => storage.as_ptr())
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        either!(self, storage => storage.as_mut_ptr())
    }
}

impl<S: StorageMemset, T: StorageMemset> StorageMemset for Either<S, T> {
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        either!(self, storage => storage.memset(value, offset, len))
    }
}
