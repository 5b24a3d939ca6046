//! A segment that is being emptied: what of it is live, in the order of the log.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;

use super::super::batch::Draft;
use super::super::index::Slot;
use super::super::log::{Segment, aligned_buffer};
use super::super::read::{check, read_stored};
use super::super::recovery::name_of;
use super::super::{Damage, NvmeError, Shared};
use crate::VolumeFile;
use crate::format::{BatchHeader, EntryKind, PAGE_BYTES, ValuePlace};

/// Bytes read at once where values are smaller: neighbours come along.
const WINDOW_BYTES: u64 = 256 << 10;

/// Values that a search of the index finds at most: it is repeated until it finds none.
const SEARCH_MAX: usize = 4096;

type Survivor = (Box<[u8]>, Slot);

/// A segment that is being emptied.
#[derive(Debug)]
pub(super) struct Victim {
    segment: Arc<Segment>,
    file: Arc<dyn VolumeFile>,
    used_bytes: u64,
    /// Where the next batch header is.
    offset_bytes: u64,
    /// Of the headers read: what was live then.
    survivors: VecDeque<Survivor>,
    /// Values that can't be moved.
    damaged: BTreeSet<ValuePlace>,
    /// Whether the headers are read; what is live all the same is found by the index.
    headers_read: bool,
    window_at: u64,
    window: Option<BufferMut>,
}

impl Victim {
    pub(super) fn new(segment: Arc<Segment>) -> Option<Self> {
        let file = Arc::clone(segment.file.as_ref()?);
        let used_bytes = segment.used_bytes.load(Ordering::Acquire);
        Some(Self {
            segment,
            file,
            used_bytes,
            offset_bytes: PAGE_BYTES as u64,
            survivors: VecDeque::new(),
            damaged: BTreeSet::new(),
            headers_read: false,
            window_at: 0,
            window: None,
        })
    }

    pub(super) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The next live values, up to a batch of `bytes_max` or a single longer value; none at the end.
    /// What is damaged is noted and left where it is.
    pub(super) fn collect(
        &mut self,
        shared: &Shared,
        bytes_max: u64,
        damage: &mut Vec<Damage>,
    ) -> Result<Draft, NvmeError> {
        let mut draft = Draft::default();
        while let Some((key, slot)) = self.next_survivor(shared, draft.is_empty(), damage) {
            if shared.index.get(&key) != Some(slot) {
                continue;
            }
            let bytes = draft.batch_bytes().unwrap_or(u64::MAX);
            if !draft.is_empty() && bytes.saturating_add(slot.log_bytes(key.len())) > bytes_max {
                self.survivors.push_front((key, slot));
                break;
            }
            match self.read(&slot).and_then(|stored| {
                check(&key, &slot, &stored)?;
                Ok(stored)
            }) {
                Ok(stored) => draft.add_move(&key, &slot, stored, shared.alignment),
                Err(error) => {
                    self.damaged.insert(slot.place());
                    damage.push(Damage {
                        structure: "value",
                        location: format!("{} at {}", name_of(self.segment.id), slot.offset_bytes),
                        key: Some(key.into()),
                        reason: error.to_string(),
                    });
                }
            }
        }
        Ok(draft)
    }

    fn next_survivor(
        &mut self,
        shared: &Shared,
        may_search: bool,
        damage: &mut Vec<Damage>,
    ) -> Option<Survivor> {
        while self.survivors.is_empty() {
            if !self.headers_read && self.offset_bytes < self.used_bytes {
                match self.next_header(shared) {
                    Ok(header) => {
                        self.offset_bytes += header.batch_bytes();
                        self.survivors = survivors_of(shared, &header);
                    }
                    Err(reason) => {
                        let location =
                            format!("{} at {}", name_of(self.segment.id), self.offset_bytes);
                        damage.push(Damage::structure("batch header", location, reason));
                        self.headers_read = true;
                    }
                }
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
        self.survivors.pop_front()
    }

    fn next_header(&mut self, shared: &Shared) -> Result<BatchHeader, String> {
        shared.read_batch_header(
            &*self.file,
            self.segment.id,
            self.offset_bytes,
            self.used_bytes,
        )
    }

    /// What the index still has in the segment, in the order of the log.
    fn search(&self, shared: &Shared) -> VecDeque<Survivor> {
        let live = self.segment.live_values.load(Ordering::Acquire);
        if live <= self.damaged.len() as u64 {
            return VecDeque::new();
        }
        let mut found: Vec<Survivor> = Vec::new();
        shared.index.for_each(|key, slot| {
            if slot.segment_id == self.segment.id
                && found.len() < SEARCH_MAX
                && !self.damaged.contains(&slot.place())
            {
                found.push((key.into(), *slot));
            }
        });
        found.sort_unstable_by_key(|(_, slot)| slot.place());
        found.into()
    }

    /// The stored bytes of a value, whatever they are.
    fn read(&mut self, slot: &Slot) -> Result<BufferMut, NvmeError> {
        let (start, end) = (slot.offset_bytes, slot.offset_bytes + slot.stored_bytes);
        if slot.stored_bytes >= WINDOW_BYTES || end > self.used_bytes {
            return read_stored(&*self.file, start, slot.stored_bytes);
        }
        let window_bytes = self.window.as_ref().map_or(0, |window| window.len() as u64);
        if start < self.window_at || end > self.window_at + window_bytes {
            self.window_at = start - start % PAGE_BYTES as u64;
            let bytes = (self.used_bytes - self.window_at).min(2 * WINDOW_BYTES);
            let target = aligned_buffer(bytes as usize)?;
            self.window = None;
            match self.file.read_blocking(self.window_at, target) {
                Ok(window) => self.window = Some(window),
                // A neighbour may be what can't be read.
                Err(_) => return read_stored(&*self.file, start, slot.stored_bytes),
            }
        }
        let from = (start - self.window_at) as usize;
        let window = self.window.as_deref().unwrap_or_default();
        let stored = &window[from..from + slot.stored_bytes as usize];
        let mut value = aligned_buffer(stored.len().max(1))?;
        drop(value.split_off(stored.len()));
        value.copy_from_slice(stored);
        Ok(value)
    }
}

/// What of a batch the index points at.
fn survivors_of(shared: &Shared, header: &BatchHeader) -> VecDeque<Survivor> {
    let payload_at = header.place.offset_bytes + u64::from(header.header_bytes);
    let is_live = |key: &[u8], place: ValuePlace| {
        let slot = shared.index.get(key)?;
        (slot.place() == place).then_some(slot)
    };
    header
        .entries
        .iter()
        .filter(|entry| entry.kind != EntryKind::Delete)
        .filter_map(|entry| {
            let place = ValuePlace {
                segment_id: header.place.segment_id,
                offset_bytes: payload_at + entry.value_offset_bytes,
            };
            Some((entry.key.clone(), is_live(&entry.key, place)?))
        })
        .collect()
}
