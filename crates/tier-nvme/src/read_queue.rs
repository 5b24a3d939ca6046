//! Reads that are under way together, collected in whichever order they end.

use std::collections::VecDeque;
use std::fmt;

use core_view::BufferMut;
use core_view::contract::{Failure, Transfer};

use crate::VolumeFile;
#[cfg(target_os = "linux")]
use crate::engine::{Engine, Operation, ReadLane};

/// Reads of any files of one volume that one thread starts and collects.
///
/// Where the volume's engine can, this thread hands the reads to the kernel and takes their
/// completions itself: nobody else is woken. Dropping the queue waits for what the kernel still has.
///
/// ```
/// use core_view::BufferMut;
/// use tier_nvme::{FileName, ReadQueue, RealVolume, Volume, VolumeOptions};
///
/// let directory = tempfile::tempdir()?;
/// let volume = RealVolume::open(directory.path(), VolumeOptions::default())?;
/// let file = volume.create(&FileName::new("data")?, 1 << 20)?;
/// let mut queue = ReadQueue::default();
/// for page in 0..8 {
///     queue.push(page, &*file, page * 4096, BufferMut::zeroed(4096, 4096)?);
/// }
/// while let Some((_page, outcome)) = queue.next() {
///     assert!(outcome?.iter().all(|&byte| byte == 0));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct ReadQueue {
    #[cfg(target_os = "linux")]
    lane: Option<Box<dyn ReadLane>>,
    transfers: VecDeque<(u64, Transfer<BufferMut>)>,
}

impl ReadQueue {
    /// Fills `target` from `offset_bytes` of `file`; the outcome comes with `tag`.
    pub fn push(&mut self, tag: u64, file: &dyn VolumeFile, offset_bytes: u64, target: BufferMut) {
        file.read_queued(self, tag, offset_bytes, target);
    }

    /// Takes in a read that was started elsewhere.
    pub fn push_transfer(&mut self, tag: u64, transfer: Transfer<BufferMut>) {
        self.transfers.push_back((tag, transfer));
    }

    /// Starts a read on this queue's own lane of `engine`; gives it back if there is none.
    #[cfg(target_os = "linux")]
    pub(crate) fn push_operation(
        &mut self,
        tag: u64,
        engine: &dyn Engine,
        operation: Operation,
    ) -> Result<(), Operation> {
        if self.lane.is_none() {
            self.lane = engine.lane();
        }
        match &mut self.lane {
            Some(lane) if lane.is_of(engine) => {
                lane.push(tag, operation);
                Ok(())
            }
            _ => Err(operation),
        }
    }

    /// Waits for a read to end; `None` if none is under way.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator that ends and goes on after a push would surprise"
    )]
    pub fn next(&mut self) -> Option<(u64, Result<BufferMut, Failure>)> {
        #[cfg(target_os = "linux")]
        if let Some(ended) = self.lane.as_mut().and_then(|lane| lane.next()) {
            return Some(ended);
        }
        let (tag, transfer) = self.transfers.pop_front()?;
        Some((tag, transfer.wait()))
    }
}

impl fmt::Debug for ReadQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadQueue")
            .field("transfers", &self.transfers.len())
            .finish_non_exhaustive()
    }
}
