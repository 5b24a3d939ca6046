//! A unique buffer that engines take by value and give back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use core_alloc::{HostStorage, StorageAllocator, StorageError, StorageType, SystemAllocator};

use crate::owner::{self, RawParts};
use crate::{Access, BufferOwner};

/// Initialised host memory that nobody else can reach, at an address that does not change.
///
/// Input and output take it by value: while a device may still touch the bytes, the caller has no
/// `BufferMut`, and a completion gives it back. It can be split into disjoint parts that share one
/// owner, so that one pinned slab serves many blocks; the memory is freed when the last part is gone.
///
/// ```
/// use core_view::BufferMut;
///
/// let mut slab = BufferMut::zeroed(8192, 4096)?;
/// let mut second = slab.split_off(4096);
/// second[0] = 7;
/// assert_eq!((slab.len(), second.len()), (4096, 4096));
/// slab.unsplit(second).map_err(|_| "not neighbours")?;
/// assert_eq!(slab[4096], 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct BufferMut {
    pointer: NonNull<u8>,
    len: usize,
    owner: Arc<dyn BufferOwner>,
}

// SAFETY: the bytes are reachable through this value alone, and the owner is `Send + Sync`.
unsafe impl Send for BufferMut {}
// SAFETY: `&BufferMut` gives only shared access to the bytes.
unsafe impl Sync for BufferMut {}

impl BufferMut {
    /// Allocates `len` zeroed bytes of system memory at an alignment of `alignment` bytes.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] if `len` is zero or `alignment` is not a power of two;
    /// [`StorageError::AllocationFailed`] if the memory can't be had.
    pub fn zeroed(len: usize, alignment: usize) -> Result<Self, StorageError> {
        Ok(Self::from_storage(
            SystemAllocator::with_alignment(alignment)?.allocate(len)?,
        ))
    }

    /// Takes over a host storage of any kind, without a copy.
    pub fn from_storage<S: HostStorage>(storage: S) -> Self {
        Self::from_parts(owner::from_storage(storage))
    }

    /// Takes over a vector, without a copy.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self::from_parts(owner::from_vec(bytes))
    }

    /// Takes over `len` bytes at `pointer`, kept alive by `owner`.
    ///
    /// # Safety
    /// `pointer` must be valid for reads and writes of `len` initialised bytes for as long as `owner`
    /// lives, nothing else may access them, and `owner` must report [`Access::ReadWrite`].
    pub unsafe fn from_owner(
        pointer: NonNull<u8>,
        len: usize,
        owner: Arc<dyn BufferOwner>,
    ) -> Self {
        debug_assert_eq!(owner.access(), Access::ReadWrite);
        Self {
            pointer,
            len,
            owner,
        }
    }

    fn from_parts((pointer, len, owner): RawParts) -> Self {
        Self {
            pointer,
            len,
            owner,
        }
    }

    /// Pointer, length in bytes and owner, for a view that takes the buffer over.
    pub(crate) fn into_parts(self) -> RawParts {
        (self.pointer, self.len, self.owner)
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The kind of the memory.
    pub fn storage_type(&self) -> StorageType {
        self.owner.storage_type()
    }

    /// Pointer to the first byte; it stays the same until the buffer is dropped.
    pub fn as_ptr(&self) -> *const u8 {
        self.pointer.as_ptr()
    }

    /// Pointer to the first byte, for writing.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Whether the first byte's address is a multiple of `alignment` bytes (a power of two).
    pub fn is_aligned_to(&self, alignment: usize) -> bool {
        self.pointer.as_ptr().addr() & alignment.wrapping_sub(1) == 0
    }

    /// Keeps the first `at` bytes and returns the rest.
    ///
    /// # Panics
    /// If `at` is greater than the length, as slicing would.
    #[must_use = "the bytes after the split are in the returned buffer"]
    pub fn split_off(&mut self, at: usize) -> Self {
        assert!(
            at <= self.len,
            "split at {at} of a buffer of {} bytes",
            self.len
        );
        // SAFETY: `at` is at most the length, so the result is inside the range or one past its end.
        let pointer = unsafe { self.pointer.add(at) };
        let rest = Self {
            pointer,
            len: self.len - at,
            owner: Arc::clone(&self.owner),
        };
        self.len = at;
        rest
    }

    /// Keeps the bytes from `at` on and returns those before.
    ///
    /// # Panics
    /// If `at` is greater than the length, as slicing would.
    #[must_use = "the bytes before the split are in the returned buffer"]
    pub fn split_to(&mut self, at: usize) -> Self {
        let rest = self.split_off(at);
        std::mem::replace(self, rest)
    }

    /// Splits into parts of `part_len` bytes each; a shorter rest comes last.
    ///
    /// # Panics
    /// If `part_len` is zero.
    pub fn split_into(mut self, part_len: usize) -> Vec<Self> {
        assert!(part_len > 0, "a part must have at least one byte");
        let mut parts = Vec::with_capacity(self.len.div_ceil(part_len));
        while self.len > part_len {
            parts.push(self.split_to(part_len));
        }
        if !self.is_empty() {
            parts.push(self);
        }
        parts
    }

    /// Appends `next`, the part that followed this one before a split.
    ///
    /// # Errors
    /// Gives `next` back if it is not the direct neighbour in the same memory.
    pub fn unsplit(&mut self, next: Self) -> Result<(), Self> {
        let end = self.pointer.as_ptr().wrapping_add(self.len);
        if !Arc::ptr_eq(&self.owner, &next.owner) || end != next.pointer.as_ptr() {
            return Err(next);
        }
        self.len += next.len;
        Ok(())
    }
}

impl Deref for BufferMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the constructors promise `len` initialised bytes for as long as the owner lives, and
        // only holders of this value reach them.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl DerefMut for BufferMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl From<Vec<u8>> for BufferMut {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_vec(bytes)
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMut")
            .field("address", &self.pointer)
            .field("len_bytes", &self.len)
            .field("storage_type", &self.storage_type())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_join_again_only_in_order() {
        let mut left = BufferMut::from_vec((0..100).collect());
        let mut middle = left.split_off(30);
        let right = middle.split_off(40);
        assert_eq!((left.len(), middle.len(), right.len()), (30, 40, 30));
        let right = left.unsplit(right).unwrap_err();
        let stranger = middle.unsplit(BufferMut::from_vec(vec![0; 3])).unwrap_err();
        assert_eq!(stranger.len(), 3);
        middle[0] = 200;
        left.unsplit(middle).unwrap();
        left.unsplit(right).unwrap();
        assert_eq!((left.len(), left[30], left[99]), (100, 200, 99));
    }

    #[test]
    fn parts_keep_the_memory_alive_on_other_threads() {
        let parts = BufferMut::zeroed(64 * 1024, 4096).unwrap().split_into(1000);
        assert_eq!(parts.len(), 66);
        let threads: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(i, mut part)| {
                std::thread::spawn(move || {
                    part.fill(i as u8);
                    assert!(part.iter().all(|&byte| byte == i as u8));
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn zeroed_is_aligned_and_refuses_nonsense() {
        let buffer = BufferMut::zeroed(10, 4096).unwrap();
        assert!(buffer.is_aligned_to(4096) && buffer.iter().all(|&byte| byte == 0));
        assert!(BufferMut::zeroed(0, 4096).is_err());
        assert!(BufferMut::zeroed(10, 3).is_err());
        assert!(BufferMut::zeroed(usize::MAX, 4096).is_err());
    }
}
