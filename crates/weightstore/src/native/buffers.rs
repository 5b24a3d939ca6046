//! Page-aligned memory for chunks, reused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_alloc::{Guard, Guarded, HostStorage, StorageAllocator, SystemAllocator, SystemStorage};
#[cfg(target_os = "linux")]
use core_alloc::{HugePageAllocator, HugePageReport, MappedStorage, Pages};
use core_view::BufferMut;

use crate::WeightError;

/// What long blocks are, and where they come from.
#[cfg(target_os = "linux")]
type LongStorage = MappedStorage;
#[cfg(target_os = "linux")]
type LongAllocator = HugePageAllocator;
#[cfg(not(target_os = "linux"))]
type LongStorage = SystemStorage;
#[cfg(not(target_os = "linux"))]
type LongAllocator = SystemAllocator;

pub(super) const PAGE_LEN: usize = 4096;
/// Below this, memory comes from the heap: such values are packed, not written from where they are.
const POOLED_LEN_MIN: usize = PAGE_LEN;
/// From this on, blocks are on huge pages where there are such.
const LONG_LEN_MIN: usize = 2 << 20;
/// Idle memory that is kept: of long blocks, and of the others.
const LONG_RETAINED_BYTES_MAX: usize = 48 << 20;
const SHORT_RETAINED_BYTES_MAX: usize = 48 << 20;

/// Where chunk buffers come from and, when they are dropped, go back to.
///
/// Blocks are zeroed when they are made and never again: whoever takes one fills it, and a gigabyte of zeros in front of
/// each gigabyte of content is a twentieth of all the time that an import takes. Long blocks, from which several chunks go to
/// the device, are on huge pages: the device is told of each page that is not next to the one before.
#[derive(Debug)]
pub(super) struct Buffers {
    short: SystemAllocator,
    idle_short: Pool<SystemStorage>,
    long: LongAllocator,
    idle_long: Pool<LongStorage>,
}

type Pool<S> = Arc<Mutex<Idle<S>>>;

/// Blocks that wait for their next use, by length.
#[derive(Debug)]
struct Idle<S> {
    blocks: BTreeMap<usize, Vec<S>>,
    bytes: usize,
    bytes_max: usize,
}

impl<S: HostStorage> Idle<S> {
    fn new(bytes_max: usize) -> Pool<S> {
        Arc::new(Mutex::new(Self {
            blocks: BTreeMap::new(),
            bytes: 0,
            bytes_max,
        }))
    }

    fn take(&mut self, len: usize) -> Option<S> {
        let block = self.blocks.get_mut(&len)?.pop()?;
        self.bytes -= len;
        Some(block)
    }

    /// Keeps a block; returns those that have to go for it: of the length that most memory waits in.
    fn put(&mut self, block: S) -> Vec<S> {
        self.bytes += block.size();
        self.blocks.entry(block.size()).or_default().push(block);
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max {
            let waiting = |(len, blocks): &(&usize, &mut Vec<S>)| *len * blocks.len();
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
struct Return<S>(Pool<S>);

impl<S: HostStorage + std::fmt::Debug> Guard<S> for Return<S> {
    fn give_back(self, storage: S) {
        // Freed when the lock is not held any more.
        drop(lock(&self.0).put(storage));
    }
}

fn lock<S>(idle: &Mutex<Idle<S>>) -> MutexGuard<'_, Idle<S>> {
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
        let short = SystemAllocator::with_alignment(PAGE_LEN).map_err(refused)?;
        // Pages that somebody reserved are not for this.
        #[cfg(target_os = "linux")]
        let long = HugePageAllocator::from_rung(Pages::Transparent);
        #[cfg(not(target_os = "linux"))]
        let long = short;
        Ok(Self {
            short,
            idle_short: Idle::new(SHORT_RETAINED_BYTES_MAX),
            long,
            idle_long: Idle::new(LONG_RETAINED_BYTES_MAX),
        })
    }

    /// `len` bytes of unspecified content, on a page boundary unless they are less than a page.
    pub(super) fn take(&self, len: usize) -> Result<BufferMut, WeightError> {
        if len < POOLED_LEN_MIN {
            return Ok(BufferMut::from_vec(vec![0; len]));
        }
        let block_len = block_len(len);
        let no_memory = |_| WeightError::OutOfMemory {
            what: "a chunk".into(),
            requested_bytes: len as u64,
        };
        if block_len < LONG_LEN_MIN {
            let waiting = lock(&self.idle_short).take(block_len);
            let block = waiting.map_or_else(|| self.short.allocate(block_len), Ok);
            let block = block.map_err(no_memory)?;
            return Ok(lent(block, len, &self.idle_short));
        }
        let waiting = lock(&self.idle_long).take(block_len);
        let block = waiting.map_or_else(|| self.long.allocate(block_len), Ok);
        Ok(lent(block.map_err(no_memory)?, len, &self.idle_long))
    }

    /// On which pages long blocks are, and why not on better ones.
    #[cfg(target_os = "linux")]
    pub(super) fn pages(&self) -> HugePageReport {
        self.long.report()
    }
}

/// The first `len` bytes of a block that goes back when they are dropped.
fn lent<S: HostStorage + std::fmt::Debug>(block: S, len: usize, home: &Pool<S>) -> BufferMut {
    BufferMut::from_storage(Guarded::new(block, len, Return(Arc::clone(home))))
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
        let chunks: Vec<BufferMut> = (0..100).map(|_| buffers.take(1 << 20).unwrap()).collect();
        let long: Vec<BufferMut> = (0..20).map(|_| buffers.take(4 << 20).unwrap()).collect();
        drop((small, chunks, long));
        fn waiting<S>(idle: &Idle<S>) -> usize {
            let bytes = |(len, blocks): (&usize, &Vec<S>)| len * blocks.len();
            idle.blocks.iter().map(bytes).sum()
        }
        let short = lock(&buffers.idle_short);
        assert_eq!(short.bytes, waiting(&short));
        let least = SHORT_RETAINED_BYTES_MAX - (1 << 20);
        assert!((least..=SHORT_RETAINED_BYTES_MAX).contains(&short.bytes));
        assert_eq!(short.blocks[&8192].len(), 10, "the others are too many");
        let long = lock(&buffers.idle_long);
        assert_eq!(
            (long.bytes, waiting(&long)),
            (LONG_RETAINED_BYTES_MAX, long.bytes)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn long_blocks_are_on_huge_pages_where_there_are_such() {
        let buffers = Buffers::new().unwrap();
        let chunk = buffers.take(1 << 20).unwrap();
        let long = buffers.take(4 << 20).unwrap();
        assert_eq!((chunk.len(), long.len()), (1 << 20, 4 << 20));
        let pages = buffers.pages();
        assert_eq!(pages.transparent_count + pages.base_count, 1);
        assert_eq!(
            pages.base_count,
            u64::from(pages.transparent_refused.is_some())
        );
    }
}
