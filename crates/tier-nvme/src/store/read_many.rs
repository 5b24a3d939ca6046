//! Reading many values at once.

use std::ops::Range;
use std::sync::Arc;

use core_view::BufferMut;

use super::fetch::{Extent, Fetch, PIECE_BYTES, fetch_all};
use super::index::Slot;
use super::log::Segment;
use super::memory::MemoryKind;
use super::read::{check, extent_of};
use super::{NvmeError, Shared};

/// Values up to this length are read together with their neighbours, and copied, in bytes.
const NEIGHBOUR_BYTES_MAX: u64 = 16 << 10;
/// Bytes of neighbours that are read together.
const GROUP_BYTES_MAX: usize = 256 << 10;
/// Bytes of the largest operations.
const PIECE_BYTES_MAX: usize = 2 << 20;

type Outcome = Result<Option<BufferMut>, NvmeError>;

/// A value that was asked for.
struct Wanted {
    /// Which of the keys.
    number: usize,
    slot: Slot,
    segment: Arc<Segment>,
    extent: Extent,
    len_bytes: usize,
}

/// Values whose pages follow one another.
struct Group {
    /// Of the values, sorted by place.
    members: Range<usize>,
    extent: Extent,
}

impl Shared {
    pub(super) fn read_many(&self, keys: &[&[u8]]) -> Vec<Outcome> {
        let mut outcomes: Vec<Option<Outcome>> = keys.iter().map(|_| None).collect();
        let mut wanted = Vec::with_capacity(keys.len());
        for (number, key) in keys.iter().enumerate() {
            match self.want(number, key) {
                Want::Now(outcome) => outcomes[number] = Some(outcome),
                Want::Read(value) => wanted.push(value),
                Want::Alone => {}
            }
        }
        wanted.sort_unstable_by_key(|value| (value.slot.segment_id, value.slot.offset_bytes));
        let groups = group(&wanted);
        self.read_groups(keys, &wanted, &groups, &mut outcomes);
        // What went wrong, or away, is looked up again, alone: that tells what there is to tell.
        let told = outcomes.into_iter().zip(keys);
        told.map(|(outcome, key)| outcome.unwrap_or_else(|| self.read(key)))
            .collect()
    }

    fn want(&self, number: usize, key: &[u8]) -> Want {
        let Some(slot) = self.index.get(key) else {
            return Want::Now(Ok(None));
        };
        if let Some(value) = self.cached(&slot) {
            return Want::Now(Ok(Some(value)));
        }
        let Some(segment) = self.segments.get(slot.segment_id) else {
            return Want::Alone;
        };
        match extent_of(&slot) {
            Ok((extent, len_bytes)) if len_bytes > 0 && segment.file.is_some() => {
                Want::Read(Wanted {
                    number,
                    slot,
                    segment,
                    extent,
                    len_bytes,
                })
            }
            _ => Want::Alone,
        }
    }

    fn read_groups(
        &self,
        keys: &[&[u8]],
        wanted: &[Wanted],
        groups: &[Group],
        outcomes: &mut [Option<Outcome>],
    ) {
        let depth = self.config.io_depth() as usize;
        let total_bytes: usize = groups.iter().map(|group| group.extent.len_bytes).sum();
        let piece_bytes = (total_bytes / depth)
            .next_multiple_of(PIECE_BYTES)
            .clamp(PIECE_BYTES, PIECE_BYTES_MAX);
        let mut next = 0;
        fetch_all(
            || {
                // What there is no memory for is left to be told by the read alone.
                while let Some(group) = groups.get(next) {
                    next += 1;
                    if let Some(fetch) = self.fetch_of(wanted, group) {
                        return Some((next - 1, fetch));
                    }
                }
                None
            },
            depth,
            piece_bytes,
            |number, fetched| {
                let Some(group) = groups.get(number) else {
                    return;
                };
                let members = &wanted[group.members.clone()];
                let Ok(fetched) = fetched else { return };
                if let [value] = members {
                    if fetched.checksum != value.slot.checksum {
                        // mutant: no-batch-read-check
                        return;
                    }
                    let skip = (value.slot.offset_bytes - group.extent.start_bytes) as usize;
                    let kind = MemoryKind::Buffers;
                    if let Ok(stored) = self.cut(kind, fetched.buffer, skip, value.len_bytes) {
                        outcomes[value.number] = self.finish(keys[value.number], value, stored);
                    }
                    return;
                }
                for value in members {
                    let skip = (value.slot.offset_bytes - group.extent.start_bytes) as usize;
                    let stored = &fetched.buffer[skip..skip + value.len_bytes];
                    let key = keys[value.number];
                    if check(key, &value.slot, stored).is_ok()
                        && let Ok(stored) = self.copy_of(stored)
                    {
                        outcomes[value.number] = self.finish(key, value, stored);
                    }
                }
            },
        );
    }

    fn fetch_of<'a>(&self, wanted: &'a [Wanted], group: &Group) -> Option<Fetch<'a>> {
        let first = wanted.get(group.members.start)?;
        let target = self.lend(MemoryKind::Buffers, group.extent.len_bytes);
        let skip = (first.slot.offset_bytes - group.extent.start_bytes) as usize;
        let checked = if group.members.len() == 1 {
            skip..skip + first.len_bytes
        } else {
            0..0
        };
        Some(Fetch {
            file: first.segment.file.as_deref()?,
            start_bytes: group.extent.start_bytes,
            target: target.ok()?,
            checked,
        })
    }

    fn finish(&self, key: &[u8], value: &Wanted, stored: BufferMut) -> Option<Outcome> {
        let outcome = self.decoded(key, &value.slot, stored, MemoryKind::Buffers);
        let outcome = outcome.ok()?;
        self.counters.read(outcome.len());
        self.remember(key, &value.slot, &outcome);
        Some(Ok(Some(outcome)))
    }
}

/// What becomes of a key.
enum Want {
    Now(Outcome),
    Read(Wanted),
    /// It is read by itself, after the others.
    Alone,
}

/// Puts small values that lie side by side together.
fn group(wanted: &[Wanted]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(wanted.len());
    let mut before: Option<&Wanted> = None;
    for (at, value) in wanted.iter().enumerate() {
        let is_small = |value: &Wanted| value.slot.stored_bytes <= NEIGHBOUR_BYTES_MAX;
        let joined = before
            .filter(|before| before.slot.segment_id == value.slot.segment_id)
            .filter(|before| is_small(before) && is_small(value))
            .and_then(|_| groups.last_mut())
            .filter(|group| value.extent.start_bytes <= group.extent.end_bytes())
            .and_then(|group| {
                let end_bytes = value.extent.end_bytes().max(group.extent.end_bytes());
                let len_bytes = (end_bytes - group.extent.start_bytes) as usize;
                (len_bytes <= GROUP_BYTES_MAX).then(|| {
                    group.members.end = at + 1;
                    group.extent.len_bytes = len_bytes;
                })
            });
        if joined.is_none() {
            groups.push(Group {
                members: at..at + 1,
                extent: value.extent,
            });
        }
        before = Some(value);
    }
    groups
}
