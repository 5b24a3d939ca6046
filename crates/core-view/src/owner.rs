//! What keeps the memory behind a buffer or a view alive.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use core_alloc::{HostStorage, StorageType};

/// Whether the memory behind an owner may be written at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Never written through this owner, such as a read-only map.
    ReadOnly,
    /// May be written by whoever holds it alone.
    ReadWrite,
}

/// Keeps a range of host memory alive until it is dropped.
///
/// Buffers and views hold one behind an [`Arc`], next to a pointer into its memory; the last of them
/// drops it, on whichever thread that happens.
///
/// # Safety
/// While the value lives, the memory that was announced with it (through
/// [`BufferMut::from_owner`](crate::BufferMut::from_owner), say) must stay allocated, initialised and at
/// the same address, and nothing but the holders may write it; with [`Access::ReadOnly`], nothing may.
pub unsafe trait BufferOwner: Send + Sync + 'static {
    /// The kind of the memory.
    fn storage_type(&self) -> StorageType {
        StorageType::System
    }

    /// Whether the memory may be written.
    fn access(&self) -> Access;

    /// Makes read-only memory writable, where the owner turns out to be its only user.
    ///
    /// Called by the one holder of an owner with [`Access::ReadOnly`], who uses the result from then on. An
    /// implementation that succeeds returns a pointer to the first of the bytes that were announced with it,
    /// unchanged and valid for writes, and reports [`Access::ReadWrite`] afterwards.
    fn make_writable(&mut self) -> Option<NonNull<u8>> {
        None
    }
}

/// Pointer, length in bytes and owner: what a buffer or a view is made of.
pub(crate) type RawParts = (NonNull<u8>, usize, Arc<dyn BufferOwner>);

/// A host storage as an owner.
pub(crate) struct StorageOwner<S: HostStorage>(S);

// SAFETY: a `HostStorage` stays put and initialised while it lives, and it is not reachable but
// through the pointer that was taken when it was wrapped.
unsafe impl<S: HostStorage> BufferOwner for StorageOwner<S> {
    fn storage_type(&self) -> StorageType {
        self.0.storage_type()
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }
}

/// Moves a storage behind an owner.
pub(crate) fn from_storage<S: HostStorage>(mut storage: S) -> RawParts {
    let len = storage.size();
    let pointer = NonNull::new(storage.as_mut_ptr()).unwrap_or(NonNull::dangling());
    (pointer, len, Arc::new(StorageOwner(storage)))
}

/// The allocation of a vector, held as raw parts so that no `Vec` aliases the pointer given out.
struct VecOwner<T> {
    pointer: NonNull<T>,
    capacity: usize,
}

// SAFETY: the allocation is owned by this value alone, and `T: Send + Sync` at the only constructor.
unsafe impl<T: Send> Send for VecOwner<T> {}
// SAFETY: as above; the value itself gives no access to the elements.
unsafe impl<T: Sync> Sync for VecOwner<T> {}

impl<T> Drop for VecOwner<T> {
    fn drop(&mut self) {
        // SAFETY: pointer and capacity came from a `Vec<T>` that was never dropped; length 0 is right
        // because the elements are `Copy` and need no drop.
        drop(unsafe { Vec::from_raw_parts(self.pointer.as_ptr(), 0, self.capacity) });
    }
}

// SAFETY: a vector's allocation stays put and initialised up to its length until it is freed here.
unsafe impl<T: Copy + Send + Sync + 'static> BufferOwner for VecOwner<T> {
    fn access(&self) -> Access {
        Access::ReadWrite
    }
}

/// Moves a vector of plain elements behind an owner; the length is in bytes.
///
/// The caller sees to it that `T` has no padding: the bytes are read as initialised memory.
pub(crate) fn from_vec<T: Copy + Send + Sync + 'static>(elements: Vec<T>) -> RawParts {
    let mut elements = ManuallyDrop::new(elements);
    let pointer = NonNull::new(elements.as_mut_ptr()).unwrap_or(NonNull::dangling());
    let owner = VecOwner {
        pointer,
        capacity: elements.capacity(),
    };
    (
        pointer.cast(),
        size_of::<T>() * elements.len(),
        Arc::new(owner),
    )
}
