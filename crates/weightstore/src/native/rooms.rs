//! Where encodings are written: one behind the other in long blocks, from which they go to the device.

use std::sync::{Mutex, MutexGuard, PoisonError};

use core_view::BufferMut;
use tier_nvme::CheckedValue;

use super::buffers::{Buffers, PAGE_LEN};
use crate::identity::CHUNK_LEN_BYTES;
use crate::{ChunkEncoding, WeightError};

/// Length of a block: the more encodings fit, the less is left over at its end.
const BLOCK_LEN: usize = 4 << 20;

/// Blocks with room for more, one for each thread that ever wrote beside the others.
///
/// An encoding is as long as it turns out to be, which is known when it is written. So a thread writes it where there is room
/// for the longest, takes off the pages that it filled, and leaves the rest to the next: nothing is moved, and a block
/// is used again when the last encoding in it has arrived.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    open: Mutex<Vec<BufferMut>>,
}

impl Rooms {
    /// Has `write` fill the beginning of `len_max` bytes, and keeps as many of them as it says, on a page boundary unless
    /// they are less than a page. `None` if it gives up.
    pub(super) fn fill<T>(
        &self,
        buffers: &Buffers,
        len_max: usize,
        write: impl FnOnce(&mut [u8]) -> Option<(T, usize)>,
    ) -> Result<Option<(T, CheckedValue)>, WeightError> {
        let mut room = self.take(buffers, len_max)?;
        let written = room.get_mut(..len_max).and_then(write);
        let kept = written.map(|(what, len)| {
            if len < PAGE_LEN {
                // It is packed with others: not worth a page that is held for it.
                let short = room.get(..len).unwrap_or_default().to_vec();
                return (what, CheckedValue::new(short));
            }
            let mut pages = room.split_to(len.next_multiple_of(PAGE_LEN).min(room.len()));
            drop(pages.split_off(len));
            (what, CheckedValue::new(pages))
        });
        self.put_back(room);
        Ok(kept)
    }

    /// The room that was used last, if there is one that suffices.
    fn take(&self, buffers: &Buffers, len_max: usize) -> Result<BufferMut, WeightError> {
        let mut open = self.open();
        let suffices = |room: &BufferMut| room.len() >= len_max;
        if let Some(room) = open.pop_if(|room| suffices(room)) {
            return Ok(room);
        }
        drop(open);
        buffers.take(BLOCK_LEN.max(len_max))
    }

    /// Keeps what has room for any chunk; the memory of the rest goes back with what was written before it.
    fn put_back(&self, room: BufferMut) {
        if room.len() >= ChunkEncoding::limit_bytes(CHUNK_LEN_BYTES) {
            self.open().push(room);
        }
    }

    /// Gives back the room that is left.
    pub(super) fn clear(&self) {
        self.open().clear();
    }

    fn open(&self) -> MutexGuard<'_, Vec<BufferMut>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(rooms: &Rooms, buffers: &Buffers, len: usize, byte: u8) -> CheckedValue {
        let write = |room: &mut [u8]| {
            room[..len].fill(byte);
            Some(((), len))
        };
        let filled = rooms.fill(buffers, 900_000, write).unwrap();
        filled.unwrap().1
    }

    #[test]
    fn encodings_lie_one_behind_the_other() {
        let (rooms, buffers) = (Rooms::default(), Buffers::new().unwrap());
        let first = filled(&rooms, &buffers, 700_001, 1);
        let second = filled(&rooms, &buffers, 5000, 2);
        let next = 700_001_usize.next_multiple_of(PAGE_LEN);
        assert_eq!(second.as_ptr(), first.as_ptr().wrapping_add(next));
        // What is short has memory of its own.
        let short = filled(&rooms, &buffers, 4095, 3);
        let third = filled(&rooms, &buffers, 4096, 4);
        assert_eq!(third.as_ptr(), second.as_ptr().wrapping_add(2 * PAGE_LEN));
        let all = [(&first, 1, 700_001), (&second, 2, 5000), (&short, 3, 4095)];
        for (value, byte, len) in all {
            assert_eq!(value.len(), len);
            assert!(value.iter().all(|found| *found == byte));
        }
    }

    #[test]
    fn what_is_given_up_takes_no_room() {
        let (rooms, buffers) = (Rooms::default(), Buffers::new().unwrap());
        let first = filled(&rooms, &buffers, PAGE_LEN, 1);
        let given_up = rooms.fill(&buffers, 900_000, |room| {
            room.fill(9);
            None::<((), usize)>
        });
        assert!(given_up.unwrap().is_none());
        let second = filled(&rooms, &buffers, PAGE_LEN, 2);
        assert_eq!(second.as_ptr(), first.as_ptr().wrapping_add(PAGE_LEN));
    }

    #[test]
    fn a_block_is_used_again_once_nothing_is_in_it() {
        let (rooms, buffers) = (Rooms::default(), Buffers::new().unwrap());
        let mut values: Vec<CheckedValue> = Vec::new();
        while values.len() < 40 {
            values.push(filled(&rooms, &buffers, 800_000, 1));
        }
        let mut starts: Vec<*const u8> = values.iter().map(|value| value.as_ptr()).collect();
        values.clear();
        let again: Vec<CheckedValue> = (0..30)
            .map(|_| filled(&rooms, &buffers, 800_000, 2))
            .collect();
        starts.sort_unstable();
        let known = |value: &&CheckedValue| starts.binary_search(&value.as_ptr()).is_ok();
        assert_eq!(again.iter().filter(known).count(), again.len());
    }
}
