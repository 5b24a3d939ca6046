//! What is asked of an allocator, checked once before any allocator sees it.

use crate::StorageError;

/// The most bytes that one request can ask for.
pub(crate) const SIZE_MAX_BYTES: usize = isize::MAX.unsigned_abs();

/// A request for storage. Its size is never zero and never above `isize::MAX`, so no allocator and no
/// adaptor has to defend itself against either.
///
/// ```
/// use core_alloc::{Request, StorageAllocator, SystemAllocator};
///
/// let request = Request::new(4096)?.prefer_zero();
/// assert!(SystemAllocator.request(request)?.is_zeroed());
/// assert!(Request::new(0).is_err() && Request::new(usize::MAX).is_err());
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    size: usize,
    zero_preferred: bool,
}

impl Request {
    /// A request for `size` bytes of any contents.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] if `size` is zero or above `isize::MAX`.
    #[inline]
    pub fn new(size: usize) -> Result<Self, StorageError> {
        match size {
            1..=SIZE_MAX_BYTES => Ok(Self {
                size,
                zero_preferred: false,
            }),
            _ => Err(refusal(size)),
        }
    }

    /// Says that the bytes will have to be zero. An allocator that has zeroed memory at no cost marks
    /// what it hands out by [`Uninit::new_zeroed`](crate::Uninit::new_zeroed); others ignore the wish.
    #[must_use]
    pub fn prefer_zero(mut self) -> Self {
        self.zero_preferred = true;
        self
    }

    /// The same request for another size.
    ///
    /// # Errors
    /// As [`Request::new`].
    pub fn with_size(self, size: usize) -> Result<Self, StorageError> {
        Ok(Self {
            zero_preferred: self.zero_preferred,
            ..Self::new(size)?
        })
    }

    /// The size in bytes, from one to `isize::MAX`.
    #[inline]
    pub fn size(self) -> usize {
        self.size
    }

    /// Whether memory that is zero already is of use to the caller.
    #[inline]
    pub fn prefers_zero(self) -> bool {
        self.zero_preferred
    }
}

#[cold]
fn refusal(size: usize) -> StorageError {
    StorageError::InvalidConfig {
        field: "size",
        reason: match size {
            0 => "a storage of zero bytes can't be had; ask for at least one".to_owned(),
            _ => format!("{size} bytes are more than an object can have ({SIZE_MAX_BYTES})"),
        },
    }
}

/// Checks that `len` bytes from `offset` lie inside `size` bytes.
///
/// # Errors
/// [`StorageError::OutOfBounds`] if they don't, also when `offset + len` would wrap.
pub(crate) fn check_range(offset: usize, len: usize, size: usize) -> Result<(), StorageError> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(StorageError::OutOfBounds {
            offset_bytes: offset,
            len_bytes: len,
            size_bytes: size,
        }),
    }
}
