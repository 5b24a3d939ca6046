//! How many blocks of each class live to see each age.

use super::age::{self, STEPS};
use super::class::{CLASSES, Class};

/// Blocks of one class that were used last at one time, on their way through the ages.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    tick: u32,
    /// Those that were not used again since.
    alive: u32,
    class: Class,
}

/// A ring of records. Each is counted when it comes to an age, by those that are still there, whether in the
/// pool or not: so what a class is worth is learned from the blocks that were evicted too.
#[derive(Debug)]
pub(super) struct Records {
    ring: Vec<Record>,
    /// Number of the next record; its place is the number modulo the length.
    next: u32,
    /// For each step of age, the next record that will come to it.
    arriving: [u32; STEPS],
    /// The newest record of each class.
    newest: [u32; CLASSES],
}

impl Records {
    /// Remembers about `count` records.
    pub(super) fn new(count: usize) -> Self {
        let count = count.next_power_of_two();
        Self {
            ring: vec![Record::default(); count],
            next: 0,
            arriving: [0; STEPS],
            newest: [u32::MAX; CLASSES],
        }
    }

    fn place(&self, number: u32) -> Option<usize> {
        let back = self.next.wrapping_sub(number);
        (back > 0 && back as usize <= self.ring.len())
            .then(|| number as usize & (self.ring.len() - 1))
    }

    /// A block of `class` was used at `tick`; the number of the record that it belongs to from now on.
    #[inline]
    pub(super) fn enter(&mut self, class: Class, tick: u32) -> u32 {
        let newest = self.newest[class.index()];
        if let Some(place) = self.place(newest) {
            let record = &mut self.ring[place];
            if record.tick == tick && record.class == class {
                record.alive += 1;
                return newest;
            }
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.newest[class.index()] = number;
        let place = number as usize & (self.ring.len() - 1);
        self.ring[place] = Record {
            tick,
            alive: 1,
            class,
        };
        number
    }

    /// A block that had entered with a record was used again; whether the record still counts.
    #[inline]
    pub(super) fn leave(&mut self, number: u32) -> bool {
        let Some(place) = self.place(number) else {
            return false;
        };
        let alive = &mut self.ring[place].alive;
        *alive = alive.saturating_sub(1);
        true
    }

    /// Tells `count` of each class that came to a step of age by `tick`, and how many blocks of it did.
    pub(super) fn advance(&mut self, tick: u32, mut count: impl FnMut(Class, usize, u32)) {
        let mask = self.ring.len() - 1;
        for (step, arriving) in self.arriving.iter_mut().enumerate() {
            if self.next.wrapping_sub(*arriving) as usize > mask {
                *arriving = self.next.wrapping_sub(mask as u32);
            }
            while *arriving != self.next {
                let record = self.ring[*arriving as usize & mask];
                let age = tick.wrapping_sub(record.tick) as i32;
                if age < age::start(step) as i32 {
                    break;
                }
                count(record.class, step, record.alive);
                *arriving = arriving.wrapping_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(records: &mut Records, tick: u32) -> Vec<(usize, u32)> {
        let mut counted = Vec::new();
        records.advance(tick, |_, step, alive| counted.push((step, alive)));
        counted
    }

    #[test]
    fn blocks_are_counted_at_each_age_until_they_are_used_again() {
        let mut records = Records::new(16);
        let number = records.enter(Class(3), 10);
        assert_eq!(records.enter(Class(3), 10), number);
        assert_ne!(records.enter(Class(4), 10), number);
        assert_eq!(counted(&mut records, 10), [(0, 2), (0, 1)]);
        assert!(records.leave(number));
        assert_eq!(counted(&mut records, 12), [(1, 1), (1, 1), (2, 1), (2, 1)]);
    }

    #[test]
    fn a_record_that_was_written_over_counts_no_more() {
        let mut records = Records::new(4);
        let first = records.enter(Class(0), 0);
        for tick in 1..=4 {
            records.enter(Class(0), tick);
        }
        assert!(!records.leave(first));
        assert!(!records.leave(77));
    }
}
