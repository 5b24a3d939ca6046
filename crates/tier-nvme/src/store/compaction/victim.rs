//! A segment that is being emptied: what of it is live, in the order of the log.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;

use super::super::batch::Draft;
use super::super::index::Slot;
use super::super::log::Segment;
use super::super::memory::{MemoryKind, Reservation};
use super::super::read::{check, read_stored};
use super::super::recovery::name_of;
use super::super::verify::NoHeader;
use super::super::{Damage, NvmeError, Shared};
use super::share::Share;
use crate::VolumeFile;
use crate::format::{BatchFields, EntryKind, PAGE_BYTES, ValuePlace};

type Survivor = (Box<[u8]>, Slot);

/// Values on their way, and the memory that they take beside what is set aside.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) draft: Draft,
    pub(super) extra: Reservation,
}

/// The header of a batch, of which the entries from `next_at` on are `left`.
#[derive(Debug)]
struct Header {
    fields: BatchFields,
    bytes: BufferMut,
    left: u32,
    next_at: usize,
    _extra: Option<Reservation>,
}

/// A segment that is being emptied.
#[derive(Debug)]
pub(super) struct Victim {
    segment: Arc<Segment>,
    file: Arc<dyn VolumeFile>,
    used_bytes: u64,
    share: Share,
    /// Where the next batch header is.
    offset_bytes: u64,
    header: Option<Header>,
    /// What was live when it was found, and is next.
    survivors: VecDeque<Survivor>,
    /// Values that can't be moved.
    stuck: BTreeSet<ValuePlace>,
    /// Those of them for which there was no memory.
    pub(super) too_long: u64,
    /// Whether the headers are read; what is live all the same is found by the index.
    headers_read: bool,
    window_at: u64,
    window: Option<BufferMut>,
}

impl Victim {
    pub(super) fn new(shared: &Shared, segment: Arc<Segment>) -> Option<Self> {
        let file = Arc::clone(segment.file.as_ref()?);
        let used_bytes = segment.used_bytes.load(Ordering::Acquire);
        Some(Self {
            segment,
            file,
            used_bytes,
            share: Share::of(shared.buffers.budget().compaction_bytes()),
            offset_bytes: PAGE_BYTES as u64,
            header: None,
            survivors: VecDeque::new(),
            stuck: BTreeSet::new(),
            too_long: 0,
            headers_read: false,
            window_at: 0,
            window: None,
        })
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The next live values, up to a batch of `bytes_max` or a single longer value; none at the end.
    /// What is damaged is noted and left where it is, and so is a value for which there is no memory.
    pub(super) fn collect(
        &mut self,
        shared: &Shared,
        bytes_max: u64,
        damage: &mut Vec<Damage>,
    ) -> Result<Load, NvmeError> {
        let mut draft = Draft::default();
        let budget = shared.buffers.budget();
        let mut extra = budget.try_reserve(MemoryKind::Compaction, 0)?;
        // With the first page of the header, twice.
        let mut taken_bytes = 2 * PAGE_BYTES as u64;
        while let Some((key, slot)) = self.next_survivor(shared, draft.is_empty(), damage) {
            if shared.index.get(&key) != Some(slot) {
                continue;
            }
            let bytes = draft.batch_bytes().unwrap_or(u64::MAX);
            let is_full = bytes.saturating_add(slot.log_bytes(key.len())) > bytes_max;
            let value_bytes = Draft::moved_memory_bytes(key.len(), slot.stored_bytes);
            let more_bytes = (taken_bytes + value_bytes).saturating_sub(self.share.values_bytes);
            if !draft.is_empty() && (is_full || more_bytes > 0) {
                self.survivors.push_front((key, slot));
                break;
            }
            if more_bytes > 0 && extra.grow(more_bytes).is_err() {
                self.stuck.insert(slot.place());
                self.too_long += 1;
                continue;
            }
            taken_bytes += value_bytes;
            match self.read(shared, &slot).and_then(|stored| {
                check(&key, &slot, &stored)?;
                Ok(stored)
            }) {
                Ok(stored) => draft.add_move(&key, &slot, stored, shared.alignment),
                Err(error) => {
                    self.stuck.insert(slot.place());
                    damage.push(Damage {
                        structure: "value",
                        location: format!("{} at {}", name_of(self.segment.id), slot.offset_bytes),
                        key: Some(key.into()),
                        reason: error.to_string(),
                    });
                }
            }
        }
        Ok(Load { draft, extra })
    }

    fn next_survivor(
        &mut self,
        shared: &Shared,
        may_search: bool,
        damage: &mut Vec<Damage>,
    ) -> Option<Survivor> {
        loop {
            let survivor = self.survivors.pop_front();
            if let Some(survivor) = survivor.or_else(|| self.next_in_header(shared)) {
                return Some(survivor);
            }
            if !self.headers_read && self.offset_bytes < self.used_bytes {
                self.read_next_header(shared, damage);
                continue;
            }
            self.headers_read = true;
            // What is collected already is still where it was.
            if !may_search {
                return None;
            }
            self.survivors = self.search(shared);
            if self.survivors.is_empty() {
                return None;
            }
        }
    }

    /// The next value of the header in hand that the index points at.
    fn next_in_header(&mut self, shared: &Shared) -> Option<Survivor> {
        let Header {
            fields,
            bytes,
            left,
            next_at,
            ..
        } = self.header.as_mut()?;
        let payload_at = fields.place.offset_bytes + u64::from(fields.header_bytes);
        while *left > 0 {
            *left -= 1;
            // They were all looked at when the header was read.
            let Ok((entry, next)) = fields.next_entry(bytes, *next_at) else {
                break;
            };
            *next_at = next;
            if entry.kind == EntryKind::Delete {
                continue;
            }
            let place = ValuePlace {
                segment_id: fields.place.segment_id,
                offset_bytes: payload_at + entry.value_offset_bytes,
            };
            let slot = shared.index.get(entry.key);
            if let Some(slot) = slot.filter(|slot| slot.place() == place) {
                return Some((entry.key.into(), slot));
            }
        }
        self.header = None;
        None
    }

    fn read_next_header(&mut self, shared: &Shared, damage: &mut Vec<Damage>) {
        let (share_bytes, buffers) = (self.share.header_bytes, &shared.buffers);
        let mut extra = None;
        let lend = |len_bytes: usize| {
            if len_bytes > share_bytes {
                let budget = buffers.budget();
                extra = Some(budget.try_reserve(MemoryKind::Compaction, len_bytes as u64)?);
            }
            buffers.lend_reserved(len_bytes)
        };
        let place = (self.segment.id, self.offset_bytes);
        match shared.read_batch_header(&*self.file, place, self.used_bytes, lend) {
            Ok((fields, bytes)) => {
                self.offset_bytes += fields.batch_bytes();
                self.header = Some(Header {
                    left: fields.entry_count,
                    next_at: 0,
                    fields,
                    bytes,
                    _extra: extra,
                });
            }
            Err(NoHeader::Damaged(reason)) => {
                let location = format!("{} at {}", name_of(self.segment.id), self.offset_bytes);
                damage.push(Damage::structure("batch header", location, reason));
                self.headers_read = true;
            }
            // The index tells as well, at more cost.
            Err(NoHeader::Memory(_)) => self.headers_read = true,
        }
    }

    /// What the index still has in the segment, in the order of the log: as much as there is memory for.
    fn search(&self, shared: &Shared) -> VecDeque<Survivor> {
        let live = self.segment.live_values.load(Ordering::Acquire);
        if live <= self.stuck.len() as u64 {
            return VecDeque::new();
        }
        let mut found: Vec<Survivor> = Vec::new();
        let mut bytes = 0;
        shared.index.for_each(|key, slot| {
            if slot.segment_id == self.segment.id
                && bytes < self.share.list_bytes
                && !self.stuck.contains(&slot.place())
            {
                // The list may have room for twice as many.
                bytes += 2 * size_of::<Survivor>() + key.len().next_multiple_of(16) + 16;
                found.push((key.into(), *slot));
            }
        });
        found.sort_unstable_by_key(|(_, slot)| slot.place());
        found.into()
    }

    /// The stored bytes of a value, whatever they are.
    fn read(&mut self, shared: &Shared, slot: &Slot) -> Result<BufferMut, NvmeError> {
        let (start, end) = (slot.offset_bytes, slot.offset_bytes + slot.stored_bytes);
        let window_bytes_max = self.share.window_bytes as u64;
        let lend = |len| shared.buffers.lend_reserved(len);
        if slot.stored_bytes >= window_bytes_max / 2 || end > self.used_bytes {
            return read_stored(&*self.file, start, slot.stored_bytes, lend);
        }
        let window_bytes = self.window.as_ref().map_or(0, |window| window.len() as u64);
        if start < self.window_at || end > self.window_at + window_bytes {
            self.window_at = start - start % PAGE_BYTES as u64;
            let bytes = (self.used_bytes - self.window_at).min(window_bytes_max);
            self.window = None;
            let target = lend(bytes as usize)?;
            match self.file.read_blocking(self.window_at, target) {
                Ok(window) => self.window = Some(window),
                // A neighbour may be what can't be read.
                Err(_) => return read_stored(&*self.file, start, slot.stored_bytes, lend),
            }
        }
        let from = (start - self.window_at) as usize;
        let window = self.window.as_deref().unwrap_or_default();
        let stored = &window[from..from + slot.stored_bytes as usize];
        if stored.len() < PAGE_BYTES {
            return Ok(BufferMut::from_vec(stored.to_vec()));
        }
        let mut value = lend(stored.len().next_multiple_of(PAGE_BYTES))?;
        drop(value.split_off(stored.len()));
        value.copy_from_slice(stored);
        Ok(value)
    }
}
