//! Shared, immutable-by-default memory.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use core_alloc::{HostStorage, StorageAllocator, StorageType, SystemAllocator};

use crate::element::{bytes_of, cast_mut_slice, cast_slice};
use crate::owner::{self, RawParts};
use crate::{Access, BufferMut, BufferOwner, Element, ViewError};

/// A view of memory that several holders share: an owner, a pointer and a length in bytes.
///
/// Cloning and taking views are O(1) and allocate nothing. The bytes are written only through a holder
/// that is alone; every way to write answers with an error otherwise.
///
/// ```
/// use core_view::TensorStorage;
///
/// let mut storage = TensorStorage::from_vec(vec![1_u16, 2, 3, 4]);
/// let view = storage.view(2, 4)?;
/// assert_eq!(view.as_slice_of::<u16>()?, [2, 3]);
/// assert!(storage.as_mut_slice().is_err());
/// drop(view);
/// storage.as_mut_slice_of::<u16>()?[0] = 9;
/// assert_eq!(storage.as_slice()[..2], 9_u16.to_ne_bytes());
/// # Ok::<(), core_view::ViewError>(())
/// ```
#[derive(Clone)]
pub struct TensorStorage {
    pointer: NonNull<u8>,
    len: usize,
    /// Distance from the first byte that was announced with the owner.
    offset: usize,
    owner: Arc<dyn BufferOwner>,
}

// SAFETY: the owner is `Send + Sync`, and bytes are written only through `&mut` of the one holder.
unsafe impl Send for TensorStorage {}
// SAFETY: `&TensorStorage` gives only shared access to the bytes.
unsafe impl Sync for TensorStorage {}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<TensorStorage>();
    assert_send_sync::<BufferMut>();
};

impl TensorStorage {
    /// Takes over a vector, without a copy.
    pub fn from_vec<T: Element>(elements: Vec<T>) -> Self {
        Self::from_parts(owner::from_vec(elements))
    }

    /// Copies elements into memory of its own, aligned for every element type.
    ///
    /// # Errors
    /// [`ViewError::Storage`] if the memory can't be had.
    pub fn from_slice<T: Element>(elements: &[T]) -> Result<Self, ViewError> {
        copy_to_buffer(bytes_of(elements)).map(Self::from)
    }

    /// Takes over a host storage of any kind, without a copy.
    pub fn from_storage<S: HostStorage>(storage: S) -> Self {
        Self::from_parts(owner::from_storage(storage))
    }

    /// A view of `len` bytes at `pointer`, kept alive by `owner`.
    ///
    /// # Safety
    /// `pointer` must be valid for reads of `len` initialised bytes for as long as `owner` lives, and for
    /// writes too if `owner` reports [`Access::ReadWrite`]. Nothing but holders of `owner` may write them
    /// then, and nothing at all otherwise.
    pub unsafe fn from_owner(
        pointer: NonNull<u8>,
        len: usize,
        owner: Arc<dyn BufferOwner>,
    ) -> Self {
        Self::from_parts((pointer, len, owner))
    }

    fn from_parts((pointer, len, owner): RawParts) -> Self {
        Self {
            pointer,
            len,
            offset: 0,
            owner,
        }
    }

    /// Length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the view has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Distance in bytes from the start of the storage that this is a view of.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The kind of the memory.
    pub fn storage_type(&self) -> StorageType {
        self.owner.storage_type()
    }

    /// Whether the memory may be written by a holder that is alone.
    pub fn access(&self) -> Access {
        self.owner.access()
    }

    /// Pointer to the first byte; it stays the same while any view of the memory lives.
    #[inline]
    pub fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    /// Whether the first byte's address is a multiple of `alignment` bytes (a power of two).
    pub fn is_aligned_to(&self, alignment: usize) -> bool {
        self.pointer.as_ptr().addr() & alignment.wrapping_sub(1) == 0
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the constructors promise `len` initialised bytes while the owner lives; they are written
        // only through an exclusive borrow of the one holder.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }

    /// The elements.
    ///
    /// # Errors
    /// [`ViewError::Misaligned`], [`ViewError::PartialElement`] or [`ViewError::InvalidValue`] if the bytes
    /// are not elements of that type.
    pub fn as_slice_of<T: Element>(&self) -> Result<&[T], ViewError> {
        cast_slice(self.as_slice())
    }

    /// A view of `len` bytes from `offset` on, in the same memory. Views of views are views of the memory.
    ///
    /// # Errors
    /// [`ViewError::OutOfBounds`] if the range does not lie inside this view.
    #[inline]
    pub fn view(&self, offset: usize, len: usize) -> Result<Self, ViewError> {
        // Counting the holder is most of the work and waits for all that comes before it, so it comes first.
        let owner = Arc::clone(&self.owner);
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(self.out_of_bounds(offset, len));
        }
        // SAFETY: `offset` is at most the length, so the result is inside the view or one past its end.
        let pointer = unsafe { self.pointer.add(offset) };
        Ok(Self {
            pointer,
            len,
            offset: self.offset + offset,
            owner,
        })
    }

    #[cold]
    #[inline(never)]
    fn out_of_bounds(&self, offset: usize, len: usize) -> ViewError {
        ViewError::OutOfBounds {
            offset_bytes: offset,
            len_bytes: len,
            size_bytes: self.len,
        }
    }

    /// Whether this is the only holder of the memory at this moment.
    ///
    /// A `true` stays true until this holder clones itself; the ways to write check again.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.owner) == 1
    }

    /// Passes if this holder is alone with writable memory; its pointer may be written through then.
    fn require_exclusive(&mut self) -> Result<(), ViewError> {
        let holders = Arc::strong_count(&self.owner);
        let owner = Arc::get_mut(&mut self.owner).ok_or(ViewError::Shared {
            // A holder may have gone, or a weak reference may be in the way.
            holders: holders.max(2),
        })?;
        if owner.access() == Access::ReadOnly {
            let start = owner.make_writable().ok_or(ViewError::ReadOnly)?;
            // SAFETY: the owner promises a pointer to the first byte that was announced with it, and this
            // view lies `offset` bytes behind that.
            self.pointer = unsafe { start.add(self.offset) };
        }
        Ok(())
    }

    /// The bytes for writing, if this is the only holder.
    ///
    /// # Errors
    /// [`ViewError::Shared`] if somebody else holds the memory, [`ViewError::ReadOnly`] if it may never be
    /// written.
    pub fn get_mut(&mut self) -> Result<&mut [u8], ViewError> {
        self.require_exclusive()?;
        // SAFETY: as in `as_slice`; the owner has no other holder and allows writes, and `&mut self` makes
        // the access exclusive.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) })
    }

    /// The bytes for writing; another name for [`TensorStorage::get_mut`].
    ///
    /// # Errors
    /// As [`TensorStorage::get_mut`].
    pub fn as_mut_slice(&mut self) -> Result<&mut [u8], ViewError> {
        self.get_mut()
    }

    /// The elements for writing, if this is the only holder.
    ///
    /// # Errors
    /// As [`TensorStorage::get_mut`] and [`TensorStorage::as_slice_of`].
    pub fn as_mut_slice_of<T: Element>(&mut self) -> Result<&mut [T], ViewError> {
        cast_mut_slice(self.get_mut()?)
    }

    /// The bytes for writing, in a copy of this view (and of no more) if they can't be written in place.
    ///
    /// # Errors
    /// [`ViewError::Storage`] if the memory for a copy can't be had.
    pub fn make_mut(&mut self) -> Result<&mut [u8], ViewError> {
        if self.require_exclusive().is_err() {
            *self = self.deep_clone()?;
        }
        self.get_mut()
    }

    /// A copy of this view in memory of its own, aligned for every element type.
    ///
    /// # Errors
    /// [`ViewError::Storage`] if the memory can't be had.
    pub fn deep_clone(&self) -> Result<Self, ViewError> {
        copy_to_buffer(self.as_slice()).map(Self::from)
    }

    /// Turns the only holder into a unique buffer of the same bytes, without a copy.
    ///
    /// It works for a view into the middle of the memory, and for foreign owners that allow writes or can
    /// be made to.
    ///
    /// # Errors
    /// Gives the storage back if somebody else holds the memory or it may never be written.
    pub fn try_into_unique(mut self) -> Result<BufferMut, Self> {
        match self.require_exclusive() {
            // SAFETY: there is no other holder, the owner allows writes, and the constructors promise
            // `len` initialised bytes while it lives.
            Ok(()) => Ok(unsafe { BufferMut::from_owner(self.pointer, self.len, self.owner) }),
            Err(_) => Err(self),
        }
    }
}

/// Copies bytes into fresh system memory; none need no memory.
pub(crate) fn copy_to_buffer(bytes: &[u8]) -> Result<BufferMut, ViewError> {
    if bytes.is_empty() {
        return Ok(BufferMut::from_vec(Vec::new()));
    }
    let fresh = SystemAllocator::default().allocate_uninit(bytes.len())?;
    Ok(BufferMut::from_storage(fresh.copy_from(bytes)?))
}

/// Zeroed system memory, aligned for every element type; none for a length of zero.
pub(crate) fn zeroed_buffer(len: usize) -> Result<BufferMut, ViewError> {
    if len == 0 {
        return Ok(BufferMut::from_vec(Vec::new()));
    }
    Ok(BufferMut::from_storage(
        SystemAllocator::default().allocate(len)?,
    ))
}

impl From<BufferMut> for TensorStorage {
    /// Makes a unique buffer shareable, without a copy.
    fn from(buffer: BufferMut) -> Self {
        Self::from_parts(buffer.into_parts())
    }
}

impl<T: Element> From<Vec<T>> for TensorStorage {
    fn from(elements: Vec<T>) -> Self {
        Self::from_vec(elements)
    }
}

impl AsRef<[u8]> for TensorStorage {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for TensorStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorStorage")
            .field("address", &self.pointer)
            .field("len_bytes", &self.len)
            .field("offset_bytes", &self.offset)
            .field("storage_type", &self.storage_type())
            .field("access", &self.access())
            .finish()
    }
}

#[cfg(test)]
mod tests;
