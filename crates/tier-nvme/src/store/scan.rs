//! Memory for what reads a store from one end to the other: opening it, and verifying it.

use std::sync::Arc;

use super::NvmeError;
use super::memory::{Budget, MemoryKind, Reservation};
use crate::format::{BLOCK_BYTES_MAX, PAGE_BYTES};

/// Part of the limit that is asked for when a store is opened, one of so many: nobody else needs it.
const OPENING_PART: u64 = 4;
/// The same where others are at work: it is what batches have for themselves that it is taken of.
const BESIDE_PART: u64 = 16;
/// More than this gains nothing, in bytes.
const BYTES_MAX: u64 = 192 << 20;
/// With less than this nothing can be read: three blocks of a checkpoint with the records before each of them, and two
/// windows.
const BYTES_MIN: u64 = 1152 << 10;

/// Bytes read at once.
const WINDOW_BYTES_MIN: u64 = 64 << 10;
const WINDOW_BYTES_MAX: u64 = 1 << 20;
/// Windows that are on their way while one is looked at, at most.
const WINDOWS_AHEAD_MAX: u64 = 4;
/// Bytes of records that are handed on at once.
const PIECE_BYTES_MIN: u64 = 64 << 10;
const PIECE_BYTES_MAX: u64 = 4 << 20;

/// A share of the memory, taken once, and how it is divided: less of it means shorter reads, fewer of them ahead, and fewer
/// threads.
#[derive(Debug)]
pub(super) struct ScanMemory {
    held: Reservation,
    planned_bytes: u64,
}

/// How far a stream reads ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    /// Bytes of the longest.
    pub(super) bytes_max: u64,
    /// How many are on their way while one is looked at.
    pub(super) ahead: usize,
}

impl ScanMemory {
    /// Takes what opening a store is good with.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`].
    pub(super) fn for_opening(budget: &Arc<Budget>) -> Result<Self, NvmeError> {
        Self::take(budget, OPENING_PART)
    }

    /// Takes less, beside others who use the store.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`].
    pub(super) fn beside_others(budget: &Arc<Budget>) -> Result<Self, NvmeError> {
        Self::take(budget, BESIDE_PART)
    }

    /// Takes a part of the limit, or half of that, and so on, if it is not to be had.
    fn take(budget: &Arc<Budget>, part: u64) -> Result<Self, NvmeError> {
        let limit_bytes = budget.share_bytes(MemoryKind::Scan);
        let mut bytes = (limit_bytes / part).clamp(BYTES_MIN, BYTES_MAX);
        loop {
            match budget.try_reserve(MemoryKind::Scan, bytes) {
                Ok(held) => {
                    return Ok(Self {
                        held,
                        planned_bytes: bytes,
                    });
                }
                Err(error) if bytes == BYTES_MIN => return Err(error),
                Err(_) => bytes = (bytes / 2).max(BYTES_MIN),
            }
        }
    }

    /// With what is left beside three blocks: up to a quarter of all for windows, and as many again that were looked at.
    pub(super) fn windows(&self) -> Windows {
        let part_bytes = self.planned_bytes / 20;
        let bytes_max = part_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let windows = self.planned_bytes / 4 / bytes_max;
        Windows {
            bytes_max: bytes_max - bytes_max % PAGE_BYTES as u64,
            ahead: windows.saturating_sub(2).min(WINDOWS_AHEAD_MAX) as usize,
        }
    }

    /// Bytes of a checkpoint's records that are handed on at once.
    pub(super) fn piece_bytes(&self) -> usize {
        (self.planned_bytes / 24).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX) as usize
    }

    /// Threads that can be given pieces: each has one in hand and one waiting.
    pub(super) fn lanes_max(&self) -> usize {
        let lane_bytes = 2 * (self.piece_bytes() + BLOCK_BYTES_MAX);
        (self.planned_bytes as usize / 3 / lane_bytes).max(1)
    }

    /// Bytes of headers of the log that change the index together; four times that are on their way.
    pub(super) fn round_bytes(&self) -> usize {
        (self.planned_bytes / 8) as usize
    }

    /// Bytes of headers that are put by until it is known whether they count.
    pub(super) fn found_bytes(&self) -> usize {
        (self.planned_bytes / 16) as usize
    }

    /// Bytes of what tells values and their places, in the order in which they are read.
    pub(super) fn list_bytes(&self) -> usize {
        (self.planned_bytes / 2) as usize
    }

    /// Bytes that values are read into.
    pub(super) fn value_bytes(&self) -> usize {
        let bytes = (self.planned_bytes / 4) as usize;
        bytes - bytes % PAGE_BYTES
    }

    /// Sees to it that `bytes` are held beside what was planned.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`].
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), NvmeError> {
        let wanted = self.planned_bytes + bytes as u64;
        match wanted.checked_sub(self.held.bytes()) {
            None | Some(0) => Ok(()),
            Some(more) => self.held.grow(more),
        }
    }

    /// Gives back what is held beside what was planned.
    pub(super) fn let_go(&mut self) {
        self.held.shrink(self.held.bytes() - self.planned_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StorageConfig;

    /// Bytes of everything that the plan allows at once, while a checkpoint is read.
    fn checkpoint_bytes(memory: &ScanMemory) -> u64 {
        let windows = memory.windows();
        let (piece, block) = (memory.piece_bytes() as u64, BLOCK_BYTES_MAX as u64);
        let lanes = match memory.lanes_max() as u64 {
            1 => 0,
            lanes => lanes * 2 * (piece + block),
        };
        // The window and those ahead and one that was looked at; a block in several; records put together and handed on.
        windows.bytes_max * (windows.ahead as u64 + 2) + block + 2 * (piece + block) + lanes
    }

    #[test]
    fn what_is_planned_fits_whatever_there_is() {
        let least = StorageConfig::MEMORY_LIMIT_BYTES_MIN;
        for limit in (0..40).map(|step| least + least * step * step * step / 8) {
            let memory = ScanMemory::for_opening(&Budget::new(limit)).unwrap();
            let planned = memory.planned_bytes;
            assert!(planned >= BYTES_MIN && planned <= limit / OPENING_PART);
            let needed = checkpoint_bytes(&memory);
            assert!(needed <= planned, "{needed} of {planned} for {limit}");
            let windows = memory.windows();
            let log = windows.bytes_max * (windows.ahead as u64 + 2)
                + 4 * memory.round_bytes() as u64
                + 2 * memory.found_bytes() as u64;
            assert!(log <= planned, "{log} of {planned} for {limit}");
        }
    }

    #[test]
    fn less_is_taken_where_there_is_less_and_nothing_below_the_least() {
        let budget = Budget::new(64 << 20);
        let all = ScanMemory::for_opening(&budget).unwrap();
        assert_eq!(budget.stats().scan_bytes, 16 << 20);
        drop(all);
        let beside = ScanMemory::beside_others(&budget).unwrap();
        assert_eq!(budget.stats().scan_bytes, 4 << 20);
        drop(beside);
        let others = budget
            .try_reserve(MemoryKind::Queue, (64 << 20) - BYTES_MIN)
            .unwrap();
        let mut least = ScanMemory::for_opening(&budget).unwrap();
        assert_eq!(budget.stats().used_bytes, 64 << 20);
        assert!(least.hold(1).is_err());
        assert!(ScanMemory::for_opening(&budget).is_err());
        drop(others);
        least.hold(1 << 20).unwrap();
        least.hold(1 << 19).unwrap();
        assert_eq!(budget.stats().scan_bytes, BYTES_MIN + (1 << 20));
        least.let_go();
        assert_eq!(budget.stats().scan_bytes, BYTES_MIN);
    }
}
