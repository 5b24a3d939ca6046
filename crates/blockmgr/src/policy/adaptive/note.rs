//! What a shard saw, until all learn from it.

use super::age;
use super::class::Class;

/// Notes that a shard has before it hands them over.
pub(super) const NOTES_SOON: usize = 64;
/// Notes of all shards that are taken in at once, and the most that are left lying.
pub(super) const NOTES_AT_ONCE: usize = 256;
pub(super) const NOTES_MAX: usize = 4096;

/// Blocks of one class that one request used, or that were used again at one age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    /// The request that used them; for those that were used again, the one before.
    pub(super) tick: u32,
    pub(super) blocks: u16,
    pub(super) class: Class,
    /// The step of age at which they were used again, or [`ENTERED`].
    step: u8,
}

const ENTERED: u8 = u8::MAX;

impl Note {
    /// A block was used.
    pub(super) fn entered(class: Class, tick: u32) -> Self {
        Self {
            tick,
            blocks: 1,
            class,
            step: ENTERED,
        }
    }

    /// A block that a request had used was used again at an age.
    pub(super) fn used(class: Class, tick: u32, age: u32) -> Self {
        Self {
            step: age::step(age) as u8,
            ..Self::entered(class, tick)
        }
    }

    /// The step of age at which the blocks were used again; `None` if this is not what the note tells.
    pub(super) fn used_at(&self) -> Option<usize> {
        (self.step != ENTERED).then(|| usize::from(self.step))
    }
}

/// Notes in order. Those that tell the same become one.
#[derive(Debug)]
pub(super) struct Notes {
    notes: Vec<Note>,
}

impl Notes {
    pub(super) fn new() -> Self {
        Self {
            notes: Vec::with_capacity(NOTES_SOON),
        }
    }

    /// Adds a note of one block.
    #[inline]
    pub(super) fn push(&mut self, note: Note) {
        if let Some(last) = self.notes.last_mut() {
            let blocks = last.blocks;
            if (Note { blocks, ..note }) == *last && blocks < u16::MAX {
                last.blocks += 1;
                return;
            }
        }
        self.notes.push(note);
    }

    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }

    pub(super) fn as_slice(&self) -> &[Note] {
        &self.notes
    }

    pub(super) fn clear(&mut self) {
        self.notes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_the_same_become_one() {
        let mut notes = Notes::new();
        for _ in 0..3 {
            notes.push(Note::entered(Class(2), 9));
        }
        notes.push(Note::used(Class(2), 9, 0));
        notes.push(Note::entered(Class(3), 9));
        notes.push(Note::entered(Class(3), 8));
        let told: Vec<_> = notes
            .as_slice()
            .iter()
            .map(|note| (note.blocks, note.class.0, note.tick, note.used_at()))
            .collect();
        assert_eq!(
            told,
            [
                (3, 2, 9, None),
                (1, 2, 9, Some(0)),
                (1, 3, 9, None),
                (1, 3, 8, None)
            ]
        );
    }
}
