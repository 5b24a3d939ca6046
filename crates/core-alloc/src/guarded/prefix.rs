//! The front part of a storage, seen through a capability that was found at run time.

use std::fmt;

use super::{Guard, Guarded};
use crate::request::check_range;
use crate::{AddressableStorage, HostStorage, Storage, StorageError, StorageMemset, StorageType};

/// A [`Guarded`] prefix of an `S` that is not known to have an address or a pointer, but was found to.
///
/// Only [`Guarded`] makes one, after asking the `S`.
#[repr(transparent)]
pub(super) struct Prefix<S: Storage, G: Guard<S>>(Guarded<S, G>);

impl<S: Storage, G: Guard<S>> Prefix<S, G> {
    pub(super) fn from_ref(guarded: &Guarded<S, G>) -> &Self {
        let pointer = std::ptr::from_ref(guarded).cast::<Self>();
        // SAFETY: `Prefix` is transparent over `Guarded`, and the lifetime is the argument's.
        unsafe { &*pointer }
    }

    pub(super) fn from_mut(guarded: &mut Guarded<S, G>) -> &mut Self {
        let pointer = std::ptr::from_mut(guarded).cast::<Self>();
        // SAFETY: `Prefix` is transparent over `Guarded`, and the lifetime is the argument's.
        unsafe { &mut *pointer }
    }
}

impl<S: Storage, G: Guard<S>> fmt::Debug for Prefix<S, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<S: Storage, G: Guard<S>> Storage for Prefix<S, G> {
    fn storage_type(&self) -> StorageType {
        self.0.storage_type()
    }

    fn size(&self) -> usize {
        self.0.size
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

// SAFETY: handed out only where the storage inside was found to be addressable for at least this
// size; its contract keeps the address fixed.
unsafe impl<S: Storage, G: Guard<S>> AddressableStorage for Prefix<S, G> {
    fn addr(&self) -> u64 {
        match self.0.storage.as_addressable() {
            Some(storage) => storage.addr(),
            None => unreachable!("a storage withdrew its address"),
        }
    }
}

// SAFETY: handed out as a `HostStorage` only where the storage inside was found to be one of at least
// this size; its contract keeps the pointer valid, and `Guarded` owns that storage.
unsafe impl<S: Storage, G: Guard<S>> HostStorage for Prefix<S, G> {
    fn as_ptr(&self) -> *const u8 {
        match self.0.storage.as_host() {
            Some(storage) => storage.as_ptr(),
            None => unreachable!("a storage withdrew its pointer"),
        }
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        match self.0.storage.as_host_mut() {
            Some(storage) => storage.as_mut_ptr(),
            None => unreachable!("a storage withdrew its pointer"),
        }
    }
}

impl<S: Storage, G: Guard<S>> StorageMemset for Prefix<S, G> {
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        check_range(offset, len, self.0.size)?;
        match self.0.storage.as_memset() {
            Some(storage) => storage.memset(value, offset, len),
            None => Err(StorageError::NotAccessible {
                kind: self.storage_type(),
                how: "by memset",
            }),
        }
    }
}
