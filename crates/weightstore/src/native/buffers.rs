//! Page-aligned memory for chunks, reused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_alloc::{Guard, Guarded, Storage, StorageAllocator, SystemAllocator, SystemStorage};
use core_view::BufferMut;

use crate::WeightError;

const PAGE_LEN: usize = 4096;
/// Below this, memory comes from the heap: such values are packed, not written from where they are.
const POOLED_LEN_MIN: usize = PAGE_LEN;
/// Idle memory that is kept.
const RETAINED_BYTES_MAX: usize = 96 << 20;

/// Where chunk buffers come from and, when they are dropped, go back to.
///
/// Blocks are zeroed when they are made and never again: whoever takes one fills it, and a gigabyte of zeros in front of
/// each gigabyte of content is a twentieth of all the time that an import takes.
#[derive(Debug)]
pub(super) struct Buffers {
    pages: SystemAllocator,
    idle: Arc<Mutex<Idle>>,
}

/// Blocks that wait for their next use, by length.
#[derive(Debug, Default)]
struct Idle {
    blocks: BTreeMap<usize, Vec<SystemStorage>>,
    bytes: usize,
}

impl Idle {
    fn take(&mut self, len: usize) -> Option<SystemStorage> {
        let block = self.blocks.get_mut(&len)?.pop()?;
        self.bytes -= len;
        Some(block)
    }

    /// Keeps a block; returns those that have to go for it: of the length that most memory waits in.
    fn put(&mut self, block: SystemStorage) -> Vec<SystemStorage> {
        self.bytes += block.size();
        self.blocks.entry(block.size()).or_default().push(block);
        let mut gone = Vec::new();
        while self.bytes > RETAINED_BYTES_MAX {
            let waiting = |(len, blocks): &(&usize, &mut Vec<SystemStorage>)| *len * blocks.len();
            let most = self.blocks.iter_mut().max_by_key(waiting);
            let Some((len, block)) = most.and_then(|(len, blocks)| Some((len, blocks.pop()?)))
            else {
                break;
            };
            self.bytes -= len;
            gone.push(block);
        }
        gone
    }
}

/// The way back of a block.
#[derive(Debug)]
struct Return(Arc<Mutex<Idle>>);

impl Guard<SystemStorage> for Return {
    fn give_back(self, storage: SystemStorage) {
        // Freed when the lock is not held any more.
        drop(lock(&self.0).put(storage));
    }
}

fn lock(idle: &Mutex<Idle>) -> MutexGuard<'_, Idle> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The length of the block for `len` bytes: one of eight in each doubling, so that blocks fit again and waste an
/// eighth at most.
fn block_len(len: usize) -> usize {
    let pages = len.div_ceil(PAGE_LEN);
    let step = (pages.next_power_of_two() / 16).max(1);
    pages.next_multiple_of(step) * PAGE_LEN
}

impl Buffers {
    pub(super) fn new() -> Result<Self, WeightError> {
        let refused = |error| WeightError::storage("set up its buffers", error);
        Ok(Self {
            pages: SystemAllocator::with_alignment(PAGE_LEN).map_err(refused)?,
            idle: Arc::default(),
        })
    }

    /// `len` bytes of unspecified content, on a page boundary unless they are less than a page.
    pub(super) fn take(&self, len: usize) -> Result<BufferMut, WeightError> {
        if len < POOLED_LEN_MIN {
            return Ok(BufferMut::from_vec(vec![0; len]));
        }
        let waiting = lock(&self.idle).take(block_len(len));
        let block = match waiting {
            Some(block) => block,
            None => self
                .pages
                .allocate(block_len(len))
                .map_err(|_| WeightError::OutOfMemory {
                    what: "a chunk".into(),
                    requested_bytes: len as u64,
                })?,
        };
        let way_back = Return(Arc::clone(&self.idle));
        Ok(BufferMut::from_storage(Guarded::new(block, len, way_back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_as_they_were_left() {
        let buffers = Buffers::new().unwrap();
        for len in [0, 1, 4095, 4096, 4097, 700_001, 1 << 20] {
            let mut first = buffers.take(len).unwrap();
            assert_eq!(first.len(), len);
            first.fill(7);
            let place = first.as_ptr();
            drop(first);
            if len < POOLED_LEN_MIN {
                continue;
            }
            assert!(place.addr().is_multiple_of(PAGE_LEN));
            // One that is a little shorter fits the same block.
            let again = buffers
                .take(len - 1000 * usize::from(len > 1 << 19))
                .unwrap();
            assert_eq!(again.as_ptr(), place);
            assert!(again.iter().all(|byte| *byte == 7));
            let other = buffers.take(len).unwrap();
            assert_ne!(other.as_ptr(), place);
            assert!(other.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn blocks_waste_an_eighth_at_most() {
        for len in (1..3 << 20).step_by(997).chain([1 << 20, 1 << 16]) {
            let block = block_len(len);
            assert!(block >= len && block.is_multiple_of(PAGE_LEN));
            assert!(
                block - len.next_multiple_of(PAGE_LEN) <= len / 8,
                "{len}: {block}"
            );
            assert_eq!(block_len(block), block);
        }
        assert_eq!(block_len(1 << 20), 1 << 20);
    }

    #[test]
    fn what_waits_is_bounded() {
        let buffers = Buffers::new().unwrap();
        let small: Vec<BufferMut> = (0..10).map(|_| buffers.take(5000).unwrap()).collect();
        let large: Vec<BufferMut> = (0..100).map(|_| buffers.take(1 << 20).unwrap()).collect();
        drop(small);
        drop(large);
        let idle = lock(&buffers.idle);
        let bytes: usize = idle
            .blocks
            .iter()
            .map(|(len, blocks)| len * blocks.len())
            .sum();
        assert_eq!(idle.bytes, bytes);
        assert!((RETAINED_BYTES_MAX - (1 << 20)..=RETAINED_BYTES_MAX).contains(&bytes));
        assert_eq!(idle.blocks[&8192].len(), 10, "the others are too many");
    }
}
