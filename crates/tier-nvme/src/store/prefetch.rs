//! Reading ahead of those who read the log in order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_view::BufferMut;
use core_view::contract::Transfer;

use super::fetch::Extent;
use super::log::Segment;
use crate::format::PAGE_BYTES;

/// Readers in order that are told apart.
const STREAMS_MAX: usize = 8;
/// Windows that are kept: two for each reader.
const WINDOWS_MAX: usize = 2 * STREAMS_MAX;
/// Reads that follow one another before the next is guessed.
const RUN_MIN: u32 = 2;
/// Fewer bytes are not worth a read ahead, unless there are no more.
const AHEAD_BYTES_MIN: usize = 2 * PAGE_BYTES;
/// Bytes between two reads that still follow one another: the header of a small batch may lie there.
const GAP_BYTES: u64 = 8 << 10;
/// The same for a reader who has kept the order so far: a long header.
const RUN_GAP_BYTES: u64 = 64 << 10;

/// What reading ahead has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrefetchStats {
    /// Reads ahead.
    pub reads: u64,
    /// Bytes of them.
    pub read_bytes: u64,
    /// Bytes of them that a reader asked for later.
    pub useful_bytes: u64,
    /// Bytes of them that were given up, and no reader had asked for.
    pub wasted_bytes: u64,
    /// Reads ahead of fewer bytes than there could have been, for want of memory.
    pub shortened: u64,
    /// Reads ahead that did not take place, for want of memory.
    pub skipped: u64,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    useful_bytes: AtomicU64,
    wasted_bytes: AtomicU64,
    shortened: AtomicU64,
    skipped: AtomicU64,
}

/// Watches in which order values are read, by place, and reads on where it goes up.
///
/// What is read ahead is bytes of batches that are published, which do not change; whoever takes a value
/// out of them checks it as any other.
#[derive(Debug)]
pub(super) struct Prefetcher {
    distance_bytes: usize,
    state: Mutex<State>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct State {
    /// The newest last.
    streams: VecDeque<Stream>,
    /// The newest last.
    windows: VecDeque<Arc<Window>>,
}

#[derive(Debug)]
struct Stream {
    segment_id: u64,
    /// Where the last read ended.
    end_bytes: u64,
    /// Up to where it was read ahead.
    ahead_bytes: u64,
    /// Reads that followed one another.
    run: u32,
}

#[derive(Debug)]
struct Window {
    segment_id: u64,
    extent: Extent,
    bytes: Mutex<Bytes>,
    useful_bytes: AtomicU64,
}

#[derive(Debug)]
enum Bytes {
    OnTheWay(Transfer<BufferMut>),
    There(BufferMut),
    Failed,
}

impl Window {
    fn covers(&self, segment_id: u64, extent: Extent) -> bool {
        self.segment_id == segment_id
            && self.extent.start_bytes <= extent.start_bytes
            && extent.end_bytes() <= self.extent.end_bytes()
    }

    /// Copies a range that it covers; waits for it.
    fn copy(&self, extent: Extent, target: &mut [u8]) -> bool {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Bytes::OnTheWay(_) = &*bytes
            && let Bytes::OnTheWay(transfer) = std::mem::replace(&mut *bytes, Bytes::Failed)
            && let Ok(buffer) = transfer.wait()
        {
            *bytes = Bytes::There(buffer);
        }
        let Bytes::There(buffer) = &*bytes else {
            return false;
        };
        let from = (extent.start_bytes - self.extent.start_bytes) as usize;
        let Some(source) = buffer.get(from..from + extent.len_bytes) else {
            return false;
        };
        target[..extent.len_bytes].copy_from_slice(source);
        true
    }
}

impl Stream {
    fn gap_bytes(&self) -> u64 {
        if self.run < RUN_MIN {
            GAP_BYTES
        } else {
            RUN_GAP_BYTES
        }
    }
}

impl Prefetcher {
    /// Reads `distance_pages` pages ahead; never, if that is zero.
    pub(super) fn new(distance_pages: u32) -> Self {
        Self {
            distance_bytes: distance_pages as usize * PAGE_BYTES,
            state: Mutex::default(),
            counters: Counters::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a read of this extent can follow another one by this.
    pub(super) fn is_for(&self, extent: Extent) -> bool {
        extent.len_bytes <= self.distance_bytes
    }

    /// Fills `target` with the bytes of an extent, if they were read ahead.
    pub(super) fn take(&self, segment_id: u64, extent: Extent, target: &mut [u8]) -> bool {
        let window = {
            let state = self.lock();
            let mut windows = state.windows.iter().rev();
            windows
                .find(|window| window.covers(segment_id, extent))
                .cloned()
        };
        let Some(window) = window.filter(|window| window.copy(extent, target)) else {
            return false;
        };
        let (len, all) = (extent.len_bytes as u64, window.extent.len_bytes as u64);
        let before = window.useful_bytes.fetch_add(len, Ordering::Relaxed);
        let useful = len.min(all.saturating_sub(before));
        self.counters
            .useful_bytes
            .fetch_add(useful, Ordering::Relaxed);
        true
    }

    /// Takes note of a read, and reads on behind it if it follows another one. `lend` gives memory: if there is not enough,
    /// less is read ahead.
    pub(super) fn note(
        &self,
        segment: &Segment,
        extent: Extent,
        lend: impl Fn(usize) -> Option<BufferMut>,
    ) {
        let Some(wanted) = self.follow(segment, extent) else {
            return;
        };
        let Some(file) = &segment.file else { return };
        let count = |counter: &AtomicU64, amount| counter.fetch_add(amount, Ordering::Relaxed);
        let mut ahead = wanted;
        let target = loop {
            if let Some(target) = lend(ahead.len_bytes) {
                break target;
            }
            let half_bytes = ahead.len_bytes / 2;
            ahead.len_bytes = half_bytes - half_bytes % PAGE_BYTES;
            if ahead.len_bytes < AHEAD_BYTES_MIN {
                count(&self.counters.skipped, 1);
                self.fall_back(segment, wanted.end_bytes(), wanted.start_bytes);
                return;
            }
        };
        if ahead != wanted {
            count(&self.counters.shortened, 1);
            self.fall_back(segment, wanted.end_bytes(), ahead.end_bytes());
        }
        count(&self.counters.reads, 1);
        count(&self.counters.read_bytes, ahead.len_bytes as u64);
        let window = Arc::new(Window {
            segment_id: segment.id,
            extent: ahead,
            bytes: Mutex::new(Bytes::OnTheWay(file.read(ahead.start_bytes, target))),
            useful_bytes: AtomicU64::new(0),
        });
        let mut state = self.lock();
        state.windows.push_back(window);
        let given_up = if state.windows.len() > WINDOWS_MAX {
            state.windows.pop_front()
        } else {
            None
        };
        drop(state);
        if let Some(window) = given_up {
            self.count_wasted(&window);
        }
    }

    fn count_wasted(&self, window: &Window) {
        let useful = window.useful_bytes.load(Ordering::Relaxed);
        let wasted = (window.extent.len_bytes as u64).saturating_sub(useful);
        let counter = &self.counters.wasted_bytes;
        counter.fetch_add(wasted, Ordering::Relaxed);
    }

    /// Less was read ahead than was foreseen.
    fn fall_back(&self, segment: &Segment, foreseen_bytes: u64, ahead_bytes: u64) {
        let mut state = self.lock();
        let mut streams = state.streams.iter_mut();
        let is_it = |stream: &&mut Stream| {
            stream.segment_id == segment.id && stream.ahead_bytes == foreseen_bytes
        };
        if let Some(stream) = streams.find(is_it) {
            stream.ahead_bytes = ahead_bytes;
        }
    }

    /// Gives up what was read ahead; tells whether there was anything.
    pub(super) fn give_back(&self) -> bool {
        let windows = std::mem::take(&mut self.lock().windows);
        windows.iter().for_each(|window| self.count_wasted(window));
        !windows.is_empty()
    }

    /// What to read ahead after a read.
    fn follow(&self, segment: &Segment, extent: Extent) -> Option<Extent> {
        let end_bytes = extent.end_bytes();
        let mut state = self.lock();
        let follows = |stream: &Stream| {
            stream.segment_id == segment.id
                // Values of less than a page may share one.
                && stream.end_bytes.saturating_sub(PAGE_BYTES as u64) <= extent.start_bytes
                && extent.start_bytes <= stream.end_bytes + stream.gap_bytes()
        };
        let before = state.streams.iter().position(follows);
        let before = before.and_then(|at| state.streams.remove(at));
        let mut stream = Stream {
            segment_id: segment.id,
            end_bytes,
            ahead_bytes: before
                .as_ref()
                .map_or(end_bytes, |stream| stream.ahead_bytes.max(end_bytes)),
            run: before
                .as_ref()
                .map_or(0, |stream| stream.run.saturating_add(1)),
        };
        // Half a distance is there before the next half is asked for.
        let distance = self.distance_bytes as u64;
        let is_due =
            stream.run >= RUN_MIN && stream.ahead_bytes.saturating_sub(end_bytes) <= distance / 2;
        let until = (end_bytes + distance).min(segment.used_bytes.load(Ordering::Acquire));
        let ahead = (is_due && until > stream.ahead_bytes).then(|| Extent {
            start_bytes: stream.ahead_bytes,
            len_bytes: (until - stream.ahead_bytes) as usize,
        });
        if let Some(ahead) = ahead {
            stream.ahead_bytes = ahead.end_bytes();
        }
        state.streams.push_back(stream);
        if state.streams.len() > STREAMS_MAX {
            state.streams.pop_front();
        }
        ahead
    }

    /// Gives up all that was read ahead.
    pub(super) fn clear(&self) {
        *self.lock() = State::default();
    }

    pub(super) fn stats(&self) -> PrefetchStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PrefetchStats {
            reads: load(&self.counters.reads),
            read_bytes: load(&self.counters.read_bytes),
            useful_bytes: load(&self.counters.useful_bytes),
            wasted_bytes: load(&self.counters.wasted_bytes),
            shortened: load(&self.counters.shortened),
            skipped: load(&self.counters.skipped),
        }
    }
}
