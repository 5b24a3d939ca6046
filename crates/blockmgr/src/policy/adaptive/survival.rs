//! How likely blocks are used again, by class and age.

use super::age::{self, STEPS};
use super::class::{self, Class, ROWS};
use super::records::Records;

/// The chance of a use in the first step, before anything is known.
const FIRST_CHANCE: f32 = 0.02;

/// Least and most uses of blocks between two lessons.
const LESSON_USES: (u64, u64) = (1_000, 16_384);

/// Blocks of a class by age: how many came to each age, how many were used again there, and what it is worth
/// to keep one.
#[derive(Debug)]
pub(super) struct Survival {
    records: Records,
    uses_at: Vec<[f32; STEPS]>,
    came_to: Vec<[f32; STEPS]>,
    worth: Vec<[f32; STEPS]>,
    uses: u64,
    next_lesson: u64,
    /// What is known counts half after so many uses.
    half_life_uses: u64,
    next_halving: u64,
}

impl Survival {
    /// For a pool of `slots` slots.
    pub(super) fn new(slots: u32) -> Self {
        let half_life_uses = (u64::from(slots) * 32).max(1 << 18);
        let rows = || vec![[0.0; STEPS]; ROWS];
        Self {
            records: Records::new((slots as usize).clamp(1 << 14, 1 << 17)),
            uses_at: rows(),
            came_to: rows(),
            worth: rows(),
            uses: 0,
            next_lesson: LESSON_USES.0,
            half_life_uses,
            next_halving: half_life_uses,
        }
    }

    /// A block of `class` was used at `tick`; the record that it belongs to from now on.
    #[inline]
    pub(super) fn enter(&mut self, class: Class, tick: u32) -> u32 {
        self.uses += 1;
        self.records.enter(class, tick)
    }

    /// A block that had entered with a record was used again at an age.
    #[inline]
    pub(super) fn used_again(&mut self, class: Class, record: u32, age: u32) {
        if self.records.leave(record) {
            self.uses_at[class.row()][age::step(age)] += 1.0;
        }
    }

    /// Lets all that entered grow older, and learns from it now and then.
    pub(super) fn advance(&mut self, tick: u32) {
        let came_to = &mut self.came_to;
        self.records.advance(tick, |class, step, alive| {
            came_to[class.row()][step] += alive as f32;
        });
        if self.uses >= self.next_lesson {
            let pause = (self.uses / 8).clamp(LESSON_USES.0, LESSON_USES.1);
            self.next_lesson = self.uses + pause;
            self.learn();
        }
        if self.uses >= self.next_halving {
            self.next_halving = self.uses + self.half_life_uses;
            for count in self.uses_at.iter_mut().chain(&mut self.came_to).flatten() {
                *count *= 0.5;
            }
        }
    }

    /// Uses for each request that a block of this class and age takes its place: the larger, the longer it is kept.
    #[inline]
    pub(super) fn worth(&self, class: Class, age: u32) -> f32 {
        self.worth[class.row()][age::step(age)]
    }

    fn learn(&mut self) {
        // What classes share is the sum of theirs, made anew each time.
        for row in 0..class::SHARED_ROWS {
            self.uses_at[row] = [0.0; STEPS];
            self.came_to[row] = [0.0; STEPS];
        }
        for row in (0..ROWS).rev() {
            if let Some(parent) = class::parent(row) {
                for step in 0..STEPS {
                    self.uses_at[parent][step] += self.uses_at[row][step];
                    self.came_to[parent][step] += self.came_to[row][step];
                }
            }
        }
        let mut chances = [[0.0_f32; STEPS]; ROWS];
        for row in 0..ROWS {
            let mut before = FIRST_CHANCE;
            let parent = class::parent(row).map(|parent| chances[parent]);
            let trust = class::trust(row);
            let mut own = [0.0; STEPS];
            for (step, chance) in own.iter_mut().enumerate() {
                let expected = parent.map_or(before, |chances| chances[step]);
                let evidence = self.uses_at[row][step] + trust * expected;
                before = (evidence / (self.came_to[row][step] + trust)).min(1.0);
                *chance = before;
            }
            chances[row] = own;
            self.worth[row] = best_rates(&own);
        }
    }
}

/// For each step, the best rate of uses that keeping a block from then on for some time gives.
///
/// With S the share that was not used again before an age and R the time that this share is still held if it is kept for
/// ever, keeping from a to b gives (S_a - S_b) uses in a time of (R_a - R_b). The largest quotient over all b is the
/// slope of a tangent, from the point of a to the curve of (R, S). It is the index of J. C. Gittins (1979) for a
/// block that starts anew when it is used.
fn best_rates(chances: &[f32; STEPS]) -> [f32; STEPS] {
    let mut survivors = [1.0_f64; STEPS + 1];
    for (step, chance) in chances.iter().enumerate() {
        survivors[step + 1] = survivors[step] * (1.0 - f64::from(*chance));
    }
    let slope = |from: (f64, f64), to: (f64, f64)| {
        let held = from.0 - to.0;
        if held > 0.0 {
            (from.1 - to.1) / held
        } else {
            0.0
        }
    };
    let mut rates = [0.0; STEPS];
    // The convex curve below all points behind, the nearest last.
    let mut curve = [(0.0, 0.0); STEPS + 1];
    curve[0].1 = survivors[STEPS];
    let mut len = 1;
    let mut held = 0.0;
    for step in (0..STEPS).rev() {
        let mean = 0.5 * (survivors[step] + survivors[step + 1]);
        held += f64::from(age::width(step)) * mean;
        let point = (held, survivors[step]);
        while len > 1 && slope(point, curve[len - 1]) <= slope(point, curve[len - 2]) {
            len -= 1;
        }
        rates[step] = slope(point, curve[len - 1]) as f32;
        curve[len] = point;
        len += 1;
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_rate_is_the_best_over_all_ends() {
        let mut state = 7_u64;
        for _ in 0..200 {
            let mut chances = [0.0; STEPS];
            for chance in &mut chances {
                state = crate::policy::mix(state + 1);
                *chance = ((state >> 40) as f32 / (1 << 24) as f32).powi(6);
            }
            let rates = best_rates(&chances);
            for (first, rate) in rates.iter().enumerate() {
                let (mut survivors, mut held, mut best) = (1.0_f64, 0.0, 0.0_f64);
                for (step, &chance) in chances.iter().enumerate().skip(first) {
                    let chance = f64::from(chance);
                    held += f64::from(age::width(step)) * survivors * (1.0 - 0.5 * chance);
                    survivors *= 1.0 - chance;
                    best = best.max((1.0 - survivors) / held);
                }
                let error = (f64::from(*rate) - best).abs();
                assert!(error <= 1e-4 * best + 1e-9, "{rate} {best} at {first}");
            }
        }
    }

    #[test]
    fn what_returns_after_a_pause_is_worth_most_just_before() {
        let mut survival = Survival::new(100);
        let class = Class(5);
        let mut entered = std::collections::VecDeque::new();
        for tick in 0..20_000 {
            survival.advance(tick);
            entered.push_back(survival.enter(class, tick));
            if tick >= 100 && tick % 4 == 0 {
                let record = entered[entered.len() - 101];
                survival.used_again(class, record, 100);
            }
        }
        survival.learn();
        let worth = |age| survival.worth(class, age);
        assert!(worth(90) > 2.0 * worth(40) && worth(40) > worth(2));
        assert!(worth(90) > 10.0 * worth(200));
    }
}
