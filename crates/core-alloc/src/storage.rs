//! What a piece of storage is, and how it may be reached.

use std::fmt;

use crate::StorageError;
use crate::request::check_range;

/// The kind of a piece of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum StorageType {
    /// Pageable host memory.
    System,
    /// Memory of the CUDA device with this ordinal.
    Device(u32),
    /// Page-locked host memory that a device can reach.
    Pinned,
    /// A region on disk; the payload identifies the region within its allocator.
    Disk(u64),
    /// Remote memory reached through NIXL.
    Nixl,
    /// No memory at all; for tests.
    Null,
}

impl fmt::Display for StorageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system"),
            Self::Device(ordinal) => write!(f, "device {ordinal}"),
            Self::Pinned => f.write_str("pinned"),
            Self::Disk(region) => write!(f, "disk region {region}"),
            Self::Nixl => f.write_str("remote"),
            Self::Null => f.write_str("null"),
        }
    }
}

/// A piece of storage of any kind: memory, a region of a device, a region on disk, or nothing.
///
/// Dropping a storage gives it back to where it came from. What a storage reveals of itself through
/// the `as_…` methods, and its size, stay the same for as long as it lives.
pub trait Storage: fmt::Debug + Send + Sync + 'static {
    /// The kind of this storage.
    fn storage_type(&self) -> StorageType;

    /// The size in bytes; never zero for a storage that an allocator handed out.
    fn size(&self) -> usize;

    /// This storage as one with an address, where it has one.
    fn as_addressable(&self) -> Option<&dyn AddressableStorage> {
        None
    }

    /// This storage as host memory, where it is that.
    fn as_host(&self) -> Option<&dyn HostStorage> {
        None
    }

    /// This storage as writable host memory, where it is that.
    fn as_host_mut(&mut self) -> Option<&mut dyn HostStorage> {
        None
    }

    /// This storage as one whose bytes can be set, where it is that. Every implementation of
    /// [`StorageMemset`] overrides it, so that erased storage can be zeroed too.
    fn as_memset(&mut self) -> Option<&mut dyn StorageMemset> {
        None
    }
}

/// A storage that has an address in some address space, not necessarily the host's.
///
/// # Safety
/// `addr` must return the same address and `size` the same size for as long as the storage lives,
/// moves of the value included, and `size` bytes from there must belong to this storage alone.
pub unsafe trait AddressableStorage: Storage {
    /// The first byte's address. It may not be dereferenced on the host unless the storage is a
    /// [`HostStorage`].
    fn addr(&self) -> u64;
}

/// A storage that the host can read and write through a pointer.
///
/// # Safety
/// On top of what [`AddressableStorage`] demands: `as_ptr` and `as_mut_ptr` must return the same
/// pointer, valid for reads and writes of `size` initialised bytes, for as long as the storage lives.
/// Inside an [`Uninit`](crate::Uninit) the bytes need not be initialised.
pub unsafe trait HostStorage: AddressableStorage {
    /// Pointer to the first byte.
    fn as_ptr(&self) -> *const u8;

    /// Pointer to the first byte, for writing.
    fn as_mut_ptr(&mut self) -> *mut u8;

    /// The bytes.
    fn as_slice(&self) -> &[u8] {
        // SAFETY: the trait's contract makes the pointer valid for `size` initialised bytes, and
        // `&self` keeps writers out.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.size()) }
    }

    /// The bytes, for writing.
    fn as_mut_slice(&mut self) -> &mut [u8] {
        let len = self.size();
        // SAFETY: the trait's contract makes the pointer valid for `size` initialised bytes, and
        // `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), len) }
    }
}

/// A storage whose bytes can be set to one value.
pub trait StorageMemset: Storage {
    /// Sets `len` bytes from `offset` to `value`. It must not read the bytes: they may be
    /// uninitialised.
    ///
    /// # Errors
    /// [`StorageError::OutOfBounds`] if the range does not lie inside the storage, also when
    /// `offset + len` would wrap; a kind's own failure as [`StorageError::OperationFailed`].
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError>;
}

/// What [`StorageMemset::memset`] is for host memory.
pub(crate) fn set_bytes(
    storage: &mut impl HostStorage,
    value: u8,
    offset: usize,
    len: usize,
) -> Result<(), StorageError> {
    check_range(offset, len, storage.size())?;
    let start = storage.as_mut_ptr();
    // SAFETY: the range was checked to lie inside the storage, whose contract makes its bytes one object.
    let start = unsafe { start.add(offset) };
    // SAFETY: as above; the bytes are writable, and this caller's alone by `&mut`.
    unsafe { start.write_bytes(value, len) };
    Ok(())
}
