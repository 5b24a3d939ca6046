//! One shard of the index.
//!
//! The entries lie side by side in the order in which they came; a table beside them says where the key of a hash is.
//! So filling a shard writes memory from front to back and needs no more of it than there are entries, the table is small
//! enough for the caches, and it grows without a look at any key.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::index::Slot;
use super::key::Key;
use crate::format::ValuePlace;

/// Where the entry of a hash is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Half of the hash: enough to find the place again in a larger table.
    hash: u32,
    entry: u32,
}

impl Place {
    fn new(hash: u64, entry: usize) -> Self {
        Self {
            hash: hash as u32,
            entry: entry as u32,
        }
    }

    /// What the table goes by: it looks at both ends.
    fn table_hash(&self) -> u64 {
        table_hash(u64::from(self.hash))
    }
}

fn table_hash(hash: u64) -> u64 {
    let half = u64::from(hash as u32);
    half << 32 | half
}

/// Keys with the places of their values.
#[derive(Debug, Default)]
pub(super) struct Shard {
    entries: Vec<(Key, Slot)>,
    places: HashTable<Place>,
}

/// An entry more for so many that are there: what is asked for at once when they need room.
const ENTRIES_PER_SPARE: usize = 2;

impl Shard {
    /// Most bytes of memory for one key: its entry, with the room that is kept for more, and its place in a
    /// table that has just grown and is not half full.
    pub(super) const KEY_BYTES_MAX: u64 =
        (size_of::<(Key, Slot)>() + size_of::<(Key, Slot)>() / ENTRIES_PER_SPARE) as u64
            + ((size_of::<Place>() as u64 + 1) * 16).div_ceil(7);

    /// Makes room for so many more keys.
    pub(super) fn reserve(&mut self, keys: usize) {
        self.entries.reserve_exact(keys);
        self.places.reserve(keys, Place::table_hash);
    }

    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<Slot> {
        let entry = self.find(hash, key)?;
        self.entries.get(entry).map(|(_, slot)| *slot)
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let is_here = |place: &Place| is_at(&self.entries, *place, hash, key);
        let place = self.places.find(table_hash(hash), is_here)?;
        Some(place.entry as usize)
    }

    /// Sets a key's place and returns the one before.
    pub(super) fn insert(&mut self, hash: u64, key: Key, slot: Slot) -> Option<Slot> {
        let entries = &mut self.entries;
        let is_here = |place: &Place| is_at(entries, *place, hash, key.as_slice());
        match self
            .places
            .entry(table_hash(hash), is_here, Place::table_hash)
        {
            Entry::Occupied(found) => {
                let (_, current) = entries.get_mut(found.get().entry as usize)?;
                Some(std::mem::replace(current, slot))
            }
            Entry::Vacant(room) => {
                room.insert(Place::new(hash, entries.len()));
                if entries.len() == entries.capacity() {
                    entries.reserve_exact((entries.len() / ENTRIES_PER_SPARE).max(1));
                }
                entries.push((key, slot));
                None
            }
        }
    }

    /// Sets a key's place if it is still `from`, and returns the one before.
    pub(super) fn replace(
        &mut self,
        hash: u64,
        key: &[u8],
        from: ValuePlace,
        slot: Slot,
    ) -> Option<Slot> {
        let entry = self.find(hash, key)?;
        let (_, current) = self.entries.get_mut(entry)?;
        if current.place() != from {
            // mutant: no-move-check
            return None;
        }
        Some(std::mem::replace(current, slot))
    }

    /// Removes a key and returns its place.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        key: &[u8],
        hash_of: impl FnOnce(&[u8]) -> u64,
    ) -> Option<Slot> {
        let entries = &self.entries;
        let is_here = |place: &Place| is_at(entries, *place, hash, key);
        let found = self.places.find_entry(table_hash(hash), is_here).ok()?;
        let (gone, _) = found.remove();
        let (_, slot) = self.entries.swap_remove(gone.entry as usize);
        // The last one is where the removed one was.
        if let Some((moved, _)) = self.entries.get(gone.entry as usize) {
            let last = self.entries.len() as u32;
            let moved_hash = table_hash(hash_of(moved.as_slice()));
            if let Some(place) = self
                .places
                .find_mut(moved_hash, |place| place.entry == last)
            {
                place.entry = gone.entry;
            }
        }
        Some(slot)
    }

    pub(super) fn entries(&self) -> &[(Key, Slot)] {
        &self.entries
    }
}

fn is_at(entries: &[(Key, Slot)], place: Place, hash: u64, key: &[u8]) -> bool {
    place.hash == hash as u32
        && entries
            .get(place.entry as usize)
            .is_some_and(|(other, _)| other.as_slice() == key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::format::Encoding;

    fn slot(sequence: u64) -> Slot {
        Slot {
            segment_id: 1,
            offset_bytes: 4096 * sequence,
            stored_bytes: 10,
            raw_bytes: 10,
            sequence,
            checksum: 0,
            encoding: Encoding::Raw,
        }
    }

    /// Few different hashes, so that keys meet.
    fn hash_of(key: &[u8]) -> u64 {
        u64::from(key[0] % 5)
    }

    proptest! {
        #[test]
        fn it_is_a_map(changes in proptest::collection::vec((0_u8..3, 0_u8..30), 0..300)) {
            let mut shard = Shard::default();
            let mut model = BTreeMap::new();
            for (number, (kind, name)) in (1..).zip(changes) {
                let key = [name];
                let (hash, new) = (hash_of(&key), slot(number));
                match kind {
                    0 => {
                        let before = shard.insert(hash, Key::from(&key[..]), new);
                        prop_assert_eq!(before, model.insert(name, new));
                    }
                    1 => prop_assert_eq!(shard.remove(hash, &key, hash_of), model.remove(&name)),
                    _ => {
                        let current = model.get(&name).copied();
                        let from = current.unwrap_or(new).place();
                        prop_assert_eq!(shard.replace(hash, &key, slot(0).place(), new), None);
                        prop_assert_eq!(shard.replace(hash, &key, from, new), current);
                        model.entry(name).and_modify(|slot| *slot = new);
                    }
                }
                prop_assert_eq!(shard.entries().len(), model.len());
                for name in 0..30 {
                    let key = [name];
                    prop_assert_eq!(shard.get(hash_of(&key), &key), model.get(&name).copied());
                }
            }
        }
    }

    #[test]
    fn a_key_takes_no_more_memory_than_it_is_charged_with() {
        let hashes = foldhash::quality::RandomState::default();
        let mut shard = Shard::default();
        for number in 0_u64..100_000 {
            let key = number.to_le_bytes();
            let hash = std::hash::BuildHasher::hash_one(&hashes, key);
            shard.insert(hash, Key::from(&key[..]), slot(number));
            let entries = shard.entries.capacity() * size_of::<(Key, Slot)>();
            let bytes = entries + shard.places.allocation_size();
            // The smallest tables are more than half empty.
            let slack = if number < 8 { 200 } else { 64 };
            let charged = (number + 1) * Shard::KEY_BYTES_MAX + slack;
            assert!(bytes as u64 <= charged, "{number}: {bytes} of {charged}");
        }
    }
}
