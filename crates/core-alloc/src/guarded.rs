//! A storage that carries something which is given back after it.

use std::fmt;
use std::mem::ManuallyDrop;

use crate::request::check_range;
use crate::{AddressableStorage, HostStorage, Storage, StorageError, StorageMemset, StorageType};

mod prefix;

use prefix::Prefix;

/// What an adaptor attaches to a storage: a share of a limit, a place in a pool, a line in a count.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use core_alloc::{Guard, Guarded, HostStorage, SystemStorage};
///
/// #[derive(Debug)]
/// struct Farewell(Arc<AtomicUsize>);
///
/// impl Guard<SystemStorage> for Farewell {
///     fn give_back(self, storage: SystemStorage) {
///         drop(storage);
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// let gone = Arc::new(AtomicUsize::new(0));
/// let storage = Guarded::new(SystemStorage::new(100)?, 100, Farewell(Arc::clone(&gone)));
/// assert_eq!(storage.as_slice().len(), 100);
/// drop(storage);
/// assert_eq!(gone.load(Ordering::Relaxed), 1);
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
pub trait Guard<S>: fmt::Debug + Send + Sync + 'static {
    /// Takes the storage at the end of its use. The default frees it and then drops the guard, in
    /// this order also when freeing unwinds.
    fn give_back(self, storage: S)
    where
        Self: Sized,
    {
        let _last = self;
        drop(storage);
    }
}

/// A storage of kind `S` under an adaptor's guard `G`; possibly a prefix of the `S`.
///
/// It is reached in the same ways as the `S` inside: what has a host pointer still has it, what has
/// none gets none. When it is dropped, the guard gets the storage.
pub struct Guarded<S: Storage, G: Guard<S>> {
    storage: ManuallyDrop<S>,
    guard: ManuallyDrop<G>,
    size: usize,
}

impl<S: Storage, G: Guard<S>> Guarded<S, G> {
    /// Puts the first `size` bytes of `storage`, or all if it has fewer, under `guard`.
    #[inline]
    pub fn new(storage: S, size: usize, guard: G) -> Self {
        let size = size.min(storage.size());
        Self {
            storage: ManuallyDrop::new(storage),
            guard: ManuallyDrop::new(guard),
            size,
        }
    }

    /// The storage under the guard, if all of it is in use; nothing if this is only a prefix, because
    /// the rest may be uninitialised.
    pub fn inner(&self) -> Option<&S> {
        self.is_whole().then_some(&*self.storage)
    }

    /// The guard.
    pub fn guard(&self) -> &G {
        &self.guard
    }

    /// The guard, for a wrapper that changes it.
    pub(crate) fn guard_mut(&mut self) -> &mut G {
        &mut self.guard
    }
}

impl<S: Storage, G: Guard<S>> Guarded<S, G> {
    fn is_whole(&self) -> bool {
        self.size == self.storage.size()
    }
}

impl<S: Storage, G: Guard<S>> Drop for Guarded<S, G> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the value is being dropped, so that nothing uses the field after this.
        let guard = unsafe { ManuallyDrop::take(&mut self.guard) };
        // SAFETY: as above.
        let storage = unsafe { ManuallyDrop::take(&mut self.storage) };
        guard.give_back(storage);
    }
}

/// Leaves the inner storage's own `Debug` out, which may show bytes that are not part of this.
impl<S: Storage, G: Guard<S>> fmt::Debug for Guarded<S, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded")
            .field("kind", &self.storage_type())
            .field("size", &self.size)
            .field("guard", &*self.guard)
            .finish()
    }
}

impl<S: Storage, G: Guard<S>> Storage for Guarded<S, G> {
    fn storage_type(&self) -> StorageType {
        self.storage.storage_type()
    }

    fn size(&self) -> usize {
        self.size
    }

    fn as_addressable(&self) -> Option<&dyn AddressableStorage> {
        let whole = self.storage.as_addressable()?;
        match self.is_whole() {
            true => Some(whole),
            false => (whole.size() >= self.size).then(|| Prefix::from_ref(self) as _),
        }
    }

    fn as_host(&self) -> Option<&dyn HostStorage> {
        let whole = self.storage.as_host()?;
        match self.is_whole() {
            true => Some(whole),
            false => (whole.size() >= self.size).then(|| Prefix::from_ref(self) as _),
        }
    }

    fn as_host_mut(&mut self) -> Option<&mut dyn HostStorage> {
        if self.is_whole() {
            return self.storage.as_host_mut();
        }
        self.as_host()?;
        Some(Prefix::from_mut(self))
    }

    fn as_memset(&mut self) -> Option<&mut dyn StorageMemset> {
        if self.is_whole() {
            return self.storage.as_memset();
        }
        self.storage.as_memset()?;
        Some(Prefix::from_mut(self))
    }
}

// SAFETY: a prefix of the storage inside, whose own contract holds.
unsafe impl<S: AddressableStorage, G: Guard<S>> AddressableStorage for Guarded<S, G> {
    fn addr(&self) -> u64 {
        self.storage.addr()
    }
}

// SAFETY: a prefix of the storage inside, whose own contract holds.
unsafe impl<S: HostStorage, G: Guard<S>> HostStorage for Guarded<S, G> {
    fn as_ptr(&self) -> *const u8 {
        self.storage.as_ptr()
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.storage.as_mut_ptr()
    }
}

impl<S: StorageMemset, G: Guard<S>> StorageMemset for Guarded<S, G> {
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        check_range(offset, len, self.size)?;
        self.storage.memset(value, offset, len)
    }
}
