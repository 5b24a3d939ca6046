//! Reading many ranges of segments with several operations under way.

use std::collections::VecDeque;
use std::ops::Range;

use core_view::BufferMut;
use core_view::contract::Failure;

use super::NvmeError;
use crate::format::{Crc32c, PAGE_BYTES};
use crate::{ReadQueue, VolumeFile};

/// Whole pages that cover a range of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start_bytes: u64,
    pub(super) len_bytes: usize,
}

impl Extent {
    /// The pages around `len_bytes` at `offset_bytes`; `None` if there can't be so many.
    pub(super) fn covering(offset_bytes: u64, len_bytes: u64) -> Option<Self> {
        let skip = offset_bytes % PAGE_BYTES as u64;
        let len = usize::try_from(skip.checked_add(len_bytes)?).ok()?;
        Some(Self {
            start_bytes: offset_bytes - skip,
            len_bytes: len.checked_next_multiple_of(PAGE_BYTES)?,
        })
    }

    pub(super) fn end_bytes(&self) -> u64 {
        self.start_bytes.saturating_add(self.len_bytes as u64)
    }
}

/// What is to be read, and where to.
pub(super) struct Fetch<'a> {
    pub(super) file: &'a dyn VolumeFile,
    pub(super) start_bytes: u64,
    /// As long as what is read: whole pages.
    pub(super) target: BufferMut,
    /// The bytes of it whose checksum is wanted.
    pub(super) checked: Range<usize>,
}

/// Bytes that were read, and the checksum of those that were to be checked.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) buffer: BufferMut,
    pub(super) checksum: u32,
}

/// Reads ranges one after the other with `depth` operations of at most `piece_bytes` under way, and calls
/// `done` with the number of each that has ended. Checksums are made while the next bytes are on the way.
///
/// `next` gives the ranges in order; it is asked for another when there is a place for its first
/// operation.
pub(super) fn fetch_all<'a>(
    mut next: impl FnMut() -> Option<(usize, Fetch<'a>)>,
    depth: usize,
    piece_bytes: usize,
    mut done: impl FnMut(usize, Result<Fetched, Failure>),
) {
    let mut queue = ReadQueue::default();
    let mut waiting = VecDeque::new();
    let mut gatherings: Vec<Option<Gathering>> = Vec::new();
    let mut free = Vec::new();
    let mut started = 0;
    loop {
        // As many again wait in the queue, to follow those that end before anybody looks at them.
        while started < 2 * depth {
            if waiting.is_empty() {
                let Some((number, fetch)) = next() else { break };
                let place = free.pop().unwrap_or_else(|| {
                    gatherings.push(None);
                    gatherings.len() - 1
                });
                let place_tag = (place as u64) << 32;
                if fetch.target.len() <= piece_bytes {
                    gatherings[place] = Some(Gathering::new(number, 1, fetch.checked));
                    queue.push(place_tag, fetch.file, fetch.start_bytes, fetch.target);
                    started += 1;
                    continue;
                }
                let mut at = fetch.start_bytes;
                let pieces = fetch.target.split_into(piece_bytes);
                gatherings[place] = Some(Gathering::new(number, pieces.len(), fetch.checked));
                for (index, piece) in pieces.into_iter().enumerate() {
                    let tag = place_tag | index as u64;
                    let offset = at;
                    at += piece.len() as u64;
                    waiting.push_back((tag, fetch.file, offset, piece));
                }
            }
            if let Some((tag, file, offset, piece)) = waiting.pop_front() {
                queue.push(tag, file, offset, piece);
                started += 1;
            }
        }
        let Some((tag, outcome)) = queue.next() else {
            return;
        };
        started -= 1;
        let place = (tag >> 32) as usize;
        let Some(gathering) = gatherings[place].as_mut() else {
            continue;
        };
        gathering.take_in(tag as u32 as usize, outcome);
        if gathering.missing == 0
            && let Some(gathering) = gatherings[place].take()
        {
            free.push(place);
            done(gathering.number, gathering.finish());
        }
    }
}

/// The pieces of one range, as they come in.
struct Gathering {
    number: usize,
    missing: usize,
    /// Those that came before one in front of them.
    early: Vec<Option<BufferMut>>,
    /// How many are in `whole`.
    joined: usize,
    whole: Option<BufferMut>,
    checked: Range<usize>,
    digest: Crc32c,
    failure: Option<Failure>,
}

impl Gathering {
    fn new(number: usize, pieces: usize, checked: Range<usize>) -> Self {
        Self {
            number,
            missing: pieces,
            // One piece alone is never early.
            early: match pieces {
                1 => Vec::new(),
                pieces => (0..pieces).map(|_| None).collect(),
            },
            joined: 0,
            whole: None,
            checked,
            digest: Crc32c::default(),
            failure: None,
        }
    }

    fn take_in(&mut self, index: usize, outcome: Result<BufferMut, Failure>) {
        self.missing -= 1;
        match outcome {
            Ok(piece) => match self.early.get_mut(index) {
                Some(place) => *place = Some(piece),
                None => self.join(piece),
            },
            Err(failure) => {
                self.failure.get_or_insert(failure);
            }
        }
        while let Some(piece) = self.early.get_mut(self.joined).and_then(Option::take) {
            self.joined += 1;
            self.join(piece);
        }
    }

    fn join(&mut self, piece: BufferMut) {
        let at = self.whole.as_ref().map_or(0, |whole| whole.len());
        let from = self.checked.start.clamp(at, at + piece.len());
        let to = self.checked.end.clamp(from, at + piece.len());
        self.digest.update(&piece[from - at..to - at]);
        match &mut self.whole {
            None => self.whole = Some(piece),
            // They were split from one buffer, and come back in order.
            Some(whole) => drop(whole.unsplit(piece)),
        }
    }

    fn finish(self) -> Result<Fetched, Failure> {
        match (self.failure, self.whole) {
            (Some(failure), _) => Err(failure),
            (None, whole) => Ok(Fetched {
                buffer: whole.unwrap_or_else(|| BufferMut::from_vec(Vec::new())),
                checksum: self.digest.finish(),
            }),
        }
    }
}

/// Bytes of the operations that a range is read by if it is alone. Of a longer one the checksum is made while
/// the rest is on its way; for a shorter one that saves less than another operation costs.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// Reads one range, with the checksum of a part of it made meanwhile.
pub(super) fn fetch(
    file: &dyn VolumeFile,
    start_bytes: u64,
    target: BufferMut,
    checked: Range<usize>,
    depth: usize,
) -> Result<Fetched, NvmeError> {
    if target.len() < 2 * PIECE_BYTES {
        let buffer = file.read_blocking(start_bytes, target)?;
        let mut digest = Crc32c::default();
        digest.update(&buffer[checked]);
        let checksum = digest.finish();
        return Ok(Fetched { buffer, checksum });
    }
    let mut only = Some(Fetch {
        file,
        start_bytes,
        target,
        checked,
    });
    let mut outcome = None;
    fetch_all(
        || only.take().map(|fetch| (0, fetch)),
        depth,
        PIECE_BYTES,
        |_, fetched| outcome = Some(fetched),
    );
    match outcome {
        Some(outcome) => Ok(outcome?),
        None => Err(NvmeError::Invalid {
            field: "read",
            reason: "it did not end".to_owned(),
        }),
    }
}
