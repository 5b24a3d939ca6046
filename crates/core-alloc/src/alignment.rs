//! Where a block may start.

use crate::{StorageError, request::SIZE_MAX_BYTES};

/// An alignment in bytes: a power of two from 1 to 2⁴⁸.
///
/// ```
/// use core_alloc::Alignment;
///
/// assert_eq!(Alignment::DIRECT_IO.round_up(5000), Some(8192));
/// assert_eq!(Alignment::DIRECT_IO.round_up(usize::MAX), None);
/// assert!(Alignment::new(48).is_err());
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alignment(usize);

impl Alignment {
    /// 128 bytes: two cache lines, which the adjacent-line prefetcher fetches together.
    pub const CACHE_LINES: Self = Self(128);
    /// 4 KiB: what direct I/O asks for on common devices.
    pub const DIRECT_IO: Self = Self(4096);
    /// 2 MiB: one huge page.
    pub const HUGE_PAGE: Self = Self(2 << 20);

    /// An alignment of `bytes`.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] if `bytes` is not a power of two, or above 2⁴⁸.
    pub fn new(bytes: usize) -> Result<Self, StorageError> {
        if bytes.is_power_of_two() && (bytes as u64) <= 1 << 48 {
            return Ok(Self(bytes));
        }
        Err(StorageError::InvalidConfig {
            field: "alignment_bytes",
            reason: format!("{bytes} is not a power of two from 1 to 2^48"),
        })
    }

    /// The alignment in bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }

    /// `size` rounded up to the alignment; nothing if that is above `isize::MAX`.
    pub fn round_up(self, size: usize) -> Option<usize> {
        size.checked_next_multiple_of(self.0)
            .filter(|&rounded| rounded <= SIZE_MAX_BYTES)
    }
}

impl Default for Alignment {
    fn default() -> Self {
        Self::CACHE_LINES
    }
}
