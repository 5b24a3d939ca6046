//! What it is worth to keep a block, as learned last.

use std::sync::atomic::{AtomicU32, Ordering};

use super::age::{self, STEPS};
use super::class::{CLASSES, Class};

/// Uses for each request that a block takes its place, by class and age: read by all shards, written when there is
/// something new to know.
#[derive(Debug)]
pub(super) struct Worths {
    /// Bits of numbers.
    table: Box<[AtomicU32]>,
}

impl Worths {
    pub(super) fn new() -> Self {
        let nothing = || AtomicU32::new(0);
        Self {
            table: (0..CLASSES * STEPS).map(|_| nothing()).collect(),
        }
    }

    /// The larger, the longer a block is kept.
    #[inline]
    pub(super) fn of(&self, class: Class, age: u32) -> f32 {
        let place = class.index() * STEPS + age::step(age);
        f32::from_bits(self.table[place].load(Ordering::Relaxed))
    }

    /// States what a class is worth at each step of age.
    pub(super) fn set(&self, class: usize, rates: &[f32; STEPS]) {
        let row = &self.table[class * STEPS..(class + 1) * STEPS];
        for (place, rate) in row.iter().zip(rates) {
            place.store(rate.to_bits(), Ordering::Relaxed);
        }
    }
}
