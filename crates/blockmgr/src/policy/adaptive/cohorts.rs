//! How many blocks of each class live to see each age.

use super::age::{self, STEPS};
use super::class::{CLASSES, Class};

/// A number for each class.
pub(super) type Row = [f32; CLASSES];

/// Levels above the lowest, each with the steps of one doubling of age.
const LEVELS: usize = (STEPS - LOWEST_STEPS) / 4;
/// Steps of the lowest level, each of one age.
const LOWEST_STEPS: usize = 8;
/// Buckets of the lowest level and of each other: at most ten, and at most six, are in use.
const LOWEST_PLACES: usize = 16;
const PLACES: usize = 8;

/// A pause of so many requests without a use ends what is known of the blocks that are growing older.
const PAUSE_MAX: i32 = 1 << 16;
/// Ages beyond this are not followed.
const AGE_MAX: i32 = 1 << 19;

/// Blocks by class and by the request that used them last, on their way through the ages.
///
/// Requests fall into buckets, of one request each at the lowest level; where the older of two neighbours comes to an age at which a
/// step is twice as wide they become one of the next level. A bucket whose oldest request comes to a step is counted there, by
/// those of its blocks that were not used again, whether they are in the pool or not: so what a class
/// is worth is learned from the blocks that were evicted too.
///
/// A use that is told after its bucket came to further steps, or before it came to the one of the use, mends the counts: so
/// they do not depend on the order in which uses are told.
#[derive(Debug)]
pub(super) struct Cohorts {
    /// Number of the newest request; begins where no age reaches back beyond 0.
    now: u64,
    buckets: Vec<Row>,
    /// Blocks that came to each step.
    came_to: Vec<Row>,
}

/// A bucket, and the last step that it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    place: usize,
    arrived: usize,
}

fn place(level: usize, number: u64) -> usize {
    if level == 0 {
        return number as usize % LOWEST_PLACES;
    }
    LOWEST_PLACES + (level - 1) * PLACES + number as usize % PLACES
}

impl Cohorts {
    pub(super) fn new() -> Self {
        Self {
            now: 1 << 32,
            buckets: vec![[0.0; CLASSES]; LOWEST_PLACES + LEVELS * PLACES],
            came_to: vec![[0.0; CLASSES]; STEPS],
        }
    }

    /// Blocks that came to a step, by class.
    pub(super) fn came_to(&self, step: usize) -> &Row {
        &self.came_to[step]
    }

    /// Halves what was counted.
    pub(super) fn halve(&mut self) {
        let counts = self.came_to.iter_mut().flatten();
        counts.for_each(|count| *count *= 0.5);
    }

    /// Lets all grow older, up to a request.
    pub(super) fn advance(&mut self, tick: u32) {
        let ahead = tick.wrapping_sub(self.now as u32).cast_signed();
        if ahead > PAUSE_MAX {
            self.now += u64::from(ahead.unsigned_abs());
            self.buckets.fill([0.0; CLASSES]);
            return;
        }
        for _ in 0..ahead {
            self.pass();
        }
    }

    /// Goes on by one request.
    fn pass(&mut self) {
        self.now += 1;
        self.buckets[place(0, self.now)] = [0.0; CLASSES];
        for step in 1..LOWEST_STEPS {
            self.arrive(place(0, self.now - step as u64), step);
        }
        for level in 1..=LEVELS {
            let number = self.now >> level;
            if number << level != self.now {
                break;
            }
            let entering = number - 4;
            self.merge(level, entering);
            for quarter in 0..4 {
                let step = LOWEST_STEPS + 4 * (level - 1) + quarter;
                self.arrive(place(level, entering - quarter as u64), step);
            }
        }
    }

    fn arrive(&mut self, bucket: usize, step: usize) {
        let counts = self.came_to[step].iter_mut();
        for (count, alive) in counts.zip(&self.buckets[bucket]) {
            *count += alive;
        }
    }

    fn merge(&mut self, level: usize, number: u64) {
        let [one, other] = [0, 1].map(|half| place(level - 1, 2 * number + half));
        let merged =
            std::array::from_fn(|class| self.buckets[one][class] + self.buckets[other][class]);
        self.buckets[place(level, number)] = merged;
    }

    /// Where the blocks are that a request used last; `None` if that is too long ago.
    fn find(&self, tick: u32) -> Option<Bucket> {
        let age = (self.now as u32).wrapping_sub(tick).cast_signed();
        if !(0..AGE_MAX).contains(&age) {
            return None;
        }
        let age = u64::from(age.unsigned_abs());
        let number = self.now - age;
        let level_of_age = match age {
            0..8 => 0,
            _ => age.ilog2() as usize - 2,
        };
        // Its neighbour may be old enough to take it along to the next one.
        let next = level_of_age + 1;
        let is_merged = self.now >> next >= (number >> next) + 4;
        let level = level_of_age + usize::from(is_merged);
        let number = number >> level;
        let oldest = number << level;
        (level <= LEVELS).then(|| Bucket {
            place: place(level, number),
            arrived: age::step((self.now - oldest) as u32),
        })
    }

    /// Blocks of a class were used by a request.
    pub(super) fn enter(&mut self, class: Class, tick: u32, blocks: f32) {
        let Some(Bucket { place, arrived }) = self.find(tick) else {
            return;
        };
        self.buckets[place][class.index()] += blocks;
        for counts in &mut self.came_to[..=arrived] {
            counts[class.index()] += blocks;
        }
    }

    /// Blocks that a request had used were used again at a step of age; whether that still counts.
    pub(super) fn leave(&mut self, class: Class, tick: u32, step: usize, blocks: f32) -> bool {
        let Some(Bucket { place, arrived }) = self.find(tick) else {
            return false;
        };
        self.buckets[place][class.index()] -= blocks;
        for counts in &mut self.came_to[(step + 1).min(arrived + 1)..=arrived] {
            counts[class.index()] -= blocks;
        }
        for counts in &mut self.came_to[(arrived + 1).min(step + 1)..=step] {
            counts[class.index()] += blocks;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Use {
        tick: u32,
        again: Option<u32>,
    }

    /// The uses of blocks, each by a request and perhaps again by a later one.
    fn uses(requests: u32) -> Vec<Use> {
        let mut state = 3;
        let mut random = |below: u64| {
            state = crate::policy::mix(state + 1);
            state % below
        };
        let mut all = Vec::new();
        for tick in 0..requests {
            for _ in 0..random(4) {
                let octave = random(14);
                let age = random(1 << octave) as u32;
                let again = (random(3) == 0 && tick + age < requests).then_some(tick + age);
                all.push(Use { tick, again });
            }
        }
        all
    }

    /// What is counted when each use is told so many requests late.
    fn counted(uses: &[Use], requests: u32, late: u32, first: u32) -> Vec<f32> {
        let mut cohorts = Cohorts::new();
        cohorts.now += u64::from(first);
        let class = Class(7);
        let mut told: Vec<(u32, bool, Use)> = Vec::new();
        for &one in uses {
            told.push((one.tick + late, false, one));
            if let Some(again) = one.again {
                told.push((again + late / 2, true, one));
            }
        }
        told.sort_by_key(|(when, ..)| *when);
        for (when, again, one) in told {
            cohorts.advance(first.wrapping_add(when.min(requests)));
            let tick = first.wrapping_add(one.tick);
            if again {
                let step = age::step(one.again.unwrap_or(0) - one.tick);
                assert!(cohorts.leave(class, tick, step, 1.0));
            } else {
                cohorts.enter(class, tick, 1.0);
            }
        }
        cohorts.advance(first.wrapping_add(requests));
        (0..STEPS)
            .map(|step| cohorts.came_to(step)[class.index()])
            .collect()
    }

    #[test]
    fn blocks_are_counted_at_each_age_until_they_are_used_again() {
        const REQUESTS: u32 = 6_000;
        let uses = uses(REQUESTS);
        let counted = counted(&uses, REQUESTS, 0, 0);
        for (step, &counted) in counted.iter().enumerate() {
            // A bucket comes to a step when the oldest of its requests does.
            let came = |one: &&Use, margin: u32| {
                let end = one.again.unwrap_or(REQUESTS + margin);
                age::step(end - one.tick) >= step
            };
            let width = if step < LOWEST_STEPS {
                0
            } else {
                age::width(step)
            };
            let most = uses.iter().filter(|one| came(one, width)).count() as f32;
            let least = uses.iter().filter(|one| came(one, 0)).count() as f32;
            assert!(
                least <= counted && counted <= most,
                "{step}: {least} {counted} {most}"
            );
        }
        assert!(counted[44] > 300.0);
    }

    #[test]
    fn it_does_not_matter_when_a_use_is_told() {
        let uses = uses(5000);
        let at_once = counted(&uses, 5000, 0, 0);
        for late in [1, 2, 37, 600] {
            assert_eq!(counted(&uses, 5000, late, 0), at_once, "{late} late");
        }
    }

    #[test]
    fn the_clock_may_turn_over() {
        let uses = uses(5000);
        let at_once = counted(&uses, 5000, 0, 0);
        assert_eq!(counted(&uses, 5000, 0, 0_u32.wrapping_sub(4096)), at_once);
    }

    #[test]
    fn what_is_too_old_counts_no_more() {
        let mut cohorts = Cohorts::new();
        cohorts.advance(1);
        cohorts.enter(Class(0), 1, 2.0);
        assert!(cohorts.leave(Class(0), 1, 0, 1.0));
        // Steps that are no pause, the longest of them with nobody looking.
        for tick in [9, 60_000] {
            cohorts.advance(tick);
        }
        assert!(cohorts.leave(Class(0), 1, 0, 0.0));
        cohorts.now += 500_000;
        assert!(!cohorts.leave(Class(0), 1, 0, 1.0));
        assert!(!cohorts.leave(Class(0), 77 << 20, 0, 1.0));
        assert_eq!(cohorts.came_to(40)[0], 1.0);
    }
}
