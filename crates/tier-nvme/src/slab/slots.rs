//! Segments, and which of their slots are free.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::VolumeFile;

/// A slot of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotId {
    pub(super) segment_id: u32,
    pub(super) slot: u32,
}

/// A segment of slots.
#[derive(Debug)]
pub(super) struct BlockSegment {
    pub(super) id: u32,
    /// Absent if the file is missing or too short: its blocks can't be read, all others can.
    pub(super) file: Option<Arc<dyn VolumeFile>>,
    slots: u32,
    /// Reads under way in each slot: one that is being read is not given away. Without a file nothing is read,
    /// and a superblock that claims too much costs no memory.
    pins: Box<[AtomicU32]>,
}

/// Keeps a slot from being given away while it is read.
#[derive(Debug)]
pub(super) struct Pin {
    segment: Arc<BlockSegment>,
    slot: u32,
}

impl Pin {
    pub(super) fn file(&self) -> Option<&Arc<dyn VolumeFile>> {
        self.segment.file.as_ref()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if let Some(pins) = self.segment.pins.get(self.slot as usize) {
            pins.fetch_sub(1, Ordering::Release);
        }
    }
}

#[derive(Debug)]
struct Vacancies {
    segment: Arc<BlockSegment>,
    /// A bit for each slot, set where it is free.
    free: Vec<u64>,
    free_count: u32,
    /// No free slot lies before.
    first: u32,
}

impl Vacancies {
    fn take(&mut self) -> Option<u32> {
        let mut word = self.first as usize / 64;
        while let Some(bits) = self.free.get_mut(word) {
            if *bits != 0 {
                let bit = bits.trailing_zeros();
                *bits &= *bits - 1;
                self.free_count -= 1;
                let slot = word as u32 * 64 + bit;
                self.first = slot + 1;
                return Some(slot);
            }
            word += 1;
        }
        None
    }

    fn set(&mut self, slot: u32, free: bool) {
        let mask = 1 << (slot % 64);
        let Some(bits) = self.free.get_mut(slot as usize / 64) else {
            return;
        };
        if (*bits & mask != 0) == free {
            return;
        }
        *bits ^= mask;
        if free {
            self.free_count += 1;
            self.first = self.first.min(slot);
        } else {
            self.free_count -= 1;
        }
    }
}

#[derive(Debug, Default)]
struct Allocator {
    segments: BTreeMap<u32, Vacancies>,
    free_count: u64,
    /// Given back while somebody reads them.
    read_still: Vec<SlotId>,
    /// The segment that was taken from last.
    current: u32,
}

impl Allocator {
    fn release(&mut self, id: SlotId) {
        if let Some(vacancies) = self.segments.get_mut(&id.segment_id) {
            let before = vacancies.free_count;
            vacancies.set(id.slot, true);
            self.free_count += u64::from(vacancies.free_count - before);
        }
    }

    /// Frees what nobody reads any more.
    fn reclaim(&mut self) {
        for id in std::mem::take(&mut self.read_still) {
            let read = self
                .segments
                .get(&id.segment_id)
                .is_some_and(|vacancies| is_pinned(&vacancies.segment, id.slot));
            if read {
                self.read_still.push(id);
            } else {
                self.release(id);
            }
        }
    }

    fn take_from(&mut self, segment_id: u32, count: usize, taken: &mut Vec<SlotId>) {
        let Some(vacancies) = self.segments.get_mut(&segment_id) else {
            return;
        };
        while taken.len() < count
            && let Some(slot) = vacancies.take()
        {
            self.free_count -= 1;
            self.current = segment_id;
            taken.push(SlotId { segment_id, slot });
        }
    }
}

fn is_pinned(segment: &BlockSegment, slot: u32) -> bool {
    let pins = segment.pins.get(slot as usize);
    pins.is_some_and(|pins| pins.load(Ordering::Acquire) > 0)
}

/// All segments, and the free slots in them.
#[derive(Debug, Default)]
pub(super) struct SlotMap {
    segments: RwLock<BTreeMap<u32, Arc<BlockSegment>>>,
    allocator: Mutex<Allocator>,
    /// Whether somebody wants to know when a slot is not read any more.
    pub(super) awaited: AtomicBool,
}

impl SlotMap {
    fn allocator(&self) -> MutexGuard<'_, Allocator> {
        self.allocator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a segment, all of whose slots are free.
    pub(super) fn add(&self, id: u32, file: Option<Arc<dyn VolumeFile>>, slots: u32) {
        let segment = Arc::new(BlockSegment {
            id,
            slots,
            pins: match file {
                Some(_) => (0..slots).map(|_| AtomicU32::new(0)).collect(),
                None => Box::default(),
            },
            file,
        });
        let usable = segment.pins.len() as u32;
        let mut free = vec![u64::MAX; usable.div_ceil(64) as usize];
        if let (Some(last), rest @ 1..) = (free.last_mut(), usable % 64) {
            *last = (1 << rest) - 1;
        }
        let vacancies = Vacancies {
            segment: Arc::clone(&segment),
            free_count: usable,
            free,
            first: 0,
        };
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        segments.insert(id, segment);
        drop(segments);
        // Last: who is given a slot finds its segment.
        let mut allocator = self.allocator();
        allocator.free_count += u64::from(vacancies.free_count);
        allocator.segments.insert(id, vacancies);
    }

    /// Marks a slot as taken; `false` if it is no slot or was taken before.
    pub(super) fn claim(&self, id: SlotId) -> bool {
        let mut allocator = self.allocator();
        let Some(vacancies) = allocator.segments.get_mut(&id.segment_id) else {
            return false;
        };
        if vacancies.segment.file.is_none() {
            return id.slot < vacancies.segment.slots;
        }
        let before = vacancies.free_count;
        if id.slot < vacancies.segment.slots {
            vacancies.set(id.slot, false);
        }
        let claimed = vacancies.free_count < before;
        allocator.free_count -= u64::from(claimed);
        claimed
    }

    /// Takes `count` free slots, from one segment if one has so many, side by side where they are; `None` if
    /// there are not so many.
    pub(super) fn take(&self, count: usize) -> Option<Vec<SlotId>> {
        let mut allocator = self.allocator();
        allocator.reclaim();
        if allocator.free_count < count as u64 {
            return None;
        }
        let mut taken = Vec::with_capacity(count);
        let has_room = |vacancies: &Vacancies| vacancies.free_count as usize >= count;
        let current = allocator.current;
        let one = if allocator.segments.get(&current).is_some_and(has_room) {
            Some(current)
        } else {
            let found = allocator.segments.iter().find(|(_, it)| has_room(it));
            found.map(|(id, _)| *id)
        };
        if let Some(id) = one {
            allocator.take_from(id, count, &mut taken);
        } else {
            let ids: Vec<u32> = allocator.segments.keys().copied().collect();
            for id in ids {
                allocator.take_from(id, count, &mut taken);
            }
        }
        Some(taken)
    }

    /// As many as there are, up to `count`.
    pub(super) fn take_some(&self, count: usize) -> Vec<SlotId> {
        let free = usize::try_from(self.free_count()).unwrap_or(usize::MAX);
        self.take(count.min(free)).unwrap_or_default()
    }

    /// Gives slots back; one that is being read is free once it is not.
    pub(super) fn release(&self, ids: impl IntoIterator<Item = SlotId>) {
        let mut allocator = self.allocator();
        allocator.read_still.extend(ids);
        allocator.reclaim();
    }

    pub(super) fn free_count(&self) -> u64 {
        let mut allocator = self.allocator();
        allocator.reclaim();
        allocator.free_count
    }

    /// Whether slots will be free as soon as reads that are under way are over.
    pub(super) fn has_read_still(&self) -> bool {
        let mut allocator = self.allocator();
        self.awaited.store(true, Ordering::SeqCst);
        allocator.reclaim();
        let read_still = !allocator.read_still.is_empty();
        self.awaited.store(read_still, Ordering::SeqCst);
        read_still
    }

    pub(super) fn get(&self, id: u32) -> Option<Arc<BlockSegment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.get(&id).cloned()
    }

    /// Segments in order of their ids.
    pub(super) fn all(&self) -> Vec<Arc<BlockSegment>> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.values().cloned().collect()
    }

    pub(super) fn count(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments.len() as u64
    }

    /// Segments whose file is there.
    pub(super) fn usable_count(&self) -> u64 {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        let usable = segments.values().filter(|segment| segment.file.is_some());
        usable.count() as u64
    }

    /// Keeps a slot from being given away. The caller sees to it that the slot is taken.
    pub(super) fn pin(&self, id: SlotId) -> Option<Pin> {
        let segment = self.get(id.segment_id)?;
        let pins = segment.pins.get(id.slot as usize)?;
        pins.fetch_add(1, Ordering::Acquire);
        Some(Pin {
            slot: id.slot,
            segment,
        })
    }

    /// Lets all files go.
    pub(super) fn clear(&self) {
        *self.allocator() = Allocator::default();
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        segments.clear();
    }
}

#[cfg(test)]
#[cfg(feature = "sim")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::FileName;
    use crate::sim::SimVolume;

    fn map(segments: u32, slots: u32) -> SlotMap {
        let map = SlotMap::default();
        let volume = SimVolume::new(1).handle();
        for id in 0..segments {
            let name = FileName::new(format!("s{id}")).unwrap();
            map.add(id, Some(volume.create(&name, 0).unwrap()), slots);
        }
        map
    }

    #[test]
    fn who_is_given_a_slot_finds_its_segment() {
        let map = map(0, 1);
        let file = SimVolume::new(1).handle();
        let file = file.create(&FileName::new("s").unwrap(), 0).unwrap();
        std::thread::scope(|scope| {
            // Until this is given up no segment can be found.
            let segments = map.segments.read().unwrap();
            let adding = scope.spawn(|| map.add(0, Some(file), 1));
            for _ in 0..100 {
                assert_eq!(map.take(1), None);
                std::thread::sleep(Duration::from_micros(200));
            }
            drop(segments);
            adding.join().unwrap();
        });
        assert!(map.take(1).is_some());
    }

    #[test]
    fn a_batch_goes_side_by_side_into_one_segment() {
        let map = map(2, 70);
        assert_eq!(map.free_count(), 140);
        let first = map.take(60).unwrap();
        assert!(first.iter().all(|id| id.segment_id == 0));
        assert!(
            first
                .windows(2)
                .all(|pair| pair[1].slot == pair[0].slot + 1)
        );
        let second = map.take(60).unwrap();
        assert!(
            second.iter().all(|id| id.segment_id == 1),
            "ten are not enough"
        );
        let rest = map.take(20).unwrap();
        assert_eq!(map.free_count(), 0);
        assert!(map.take(1).is_none());
        let mut all = [first, second, rest].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 140, "no slot twice");
        map.release(all.iter().copied().filter(|id| id.slot == 69));
        assert_eq!(map.take_some(5).len(), 2);
    }

    #[test]
    fn a_slot_that_is_read_is_not_given_away() {
        let map = map(1, 3);
        let taken = map.take(3).unwrap();
        let pin = map.pin(taken[1]).unwrap();
        map.release(taken);
        assert_eq!(map.free_count(), 2);
        assert!(map.has_read_still());
        drop(pin);
        assert!(!map.has_read_still());
        assert_eq!(map.free_count(), 3);
    }

    #[test]
    fn a_slot_is_claimed_once() {
        let map = map(1, 65);
        let id = |slot| SlotId {
            segment_id: 0,
            slot,
        };
        assert!(map.claim(id(64)) && !map.claim(id(64)));
        assert!(!map.claim(id(65)));
        assert!(!map.claim(SlotId {
            segment_id: 1,
            slot: 0
        }));
        assert_eq!(map.free_count(), 64);
    }

    #[test]
    fn a_segment_that_is_missing_takes_no_memory_and_gives_no_slot() {
        let map = SlotMap::default();
        map.add(7, None, 1 << 24);
        let id = |slot| SlotId {
            segment_id: 7,
            slot,
        };
        assert!(map.claim(id((1 << 24) - 1)), "its blocks can be listed");
        assert!(!map.claim(id(1 << 24)));
        assert_eq!(map.free_count(), 0);
        assert!(map.take(1).is_none() && map.pin(id(0)).is_none());
        assert!(map.get(7).unwrap().pins.is_empty());
    }
}
