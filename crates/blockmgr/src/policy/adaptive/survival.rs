//! How likely blocks are used again, by class and age.

use super::age::{self, STEPS};
use super::class::{self, CLASSES, ENDS, FAMILIES};
use super::cohorts::{Cohorts, Row};
use super::note::Note;
use super::worth::Worths;

/// The chance of a use in the first step, before anything is known.
const FIRST_CHANCE: f32 = 0.02;

/// So many blocks' worth of evidence is what the classes of a family share, what the families of an end do, and for an end
/// the step before. Blocks of one request live and die together, so evidence is worth less than its count; the closer
/// the kin, the less they differ.
const TRUST: Trust = Trust {
    end: 20.0,
    family: 300.0,
    class: 1000.0,
};

struct Trust {
    end: f32,
    family: f32,
    class: f32,
}

/// Least and most uses of blocks between two lessons.
const LESSON_USES: (u64, u64) = (1_000, 16_384);

/// Bounds of how many uses it takes for what is known to count half.
const HALF_LIFE_USES: (u64, u64) = (1 << 18, 1 << 23);

/// Blocks of a class by age: how many came to each age, and how many were used again there.
#[derive(Debug)]
pub(super) struct Survival {
    cohorts: Cohorts,
    /// Uses at each step.
    uses_at: Vec<Row>,
    uses: u64,
    next_lesson: u64,
    /// What is known counts half after so many uses.
    half_life_uses: u64,
    next_halving: u64,
}

impl Survival {
    /// For a pool of `slots` slots.
    pub(super) fn new(slots: usize) -> Self {
        let half_life_uses = (slots as u64 * 32).clamp(HALF_LIFE_USES.0, HALF_LIFE_USES.1);
        Self {
            cohorts: Cohorts::new(),
            uses_at: vec![[0.0; CLASSES]; STEPS],
            uses: 0,
            next_lesson: LESSON_USES.0,
            half_life_uses,
            next_halving: half_life_uses,
        }
    }

    /// Takes notes in, and learns from all there were now and then.
    pub(super) fn study(&mut self, notes: &[Note], worths: &Worths) {
        for note in notes {
            self.take_in(note);
        }
        if self.uses >= self.next_lesson {
            let pause = (self.uses / 8).clamp(LESSON_USES.0, LESSON_USES.1);
            self.next_lesson = self.uses + pause;
            self.learn(worths);
        }
        if self.uses >= self.next_halving {
            self.next_halving = self.uses + self.half_life_uses;
            let counts = self.uses_at.iter_mut().flatten();
            counts.for_each(|count| *count *= 0.5);
            self.cohorts.halve();
        }
    }

    fn take_in(&mut self, note: &Note) {
        let blocks = f32::from(note.blocks);
        match note.used_at() {
            None => {
                self.uses += u64::from(note.blocks);
                self.cohorts.advance(note.tick);
                self.cohorts.enter(note.class, note.tick, blocks);
            }
            Some(step) => {
                if self.cohorts.leave(note.class, note.tick, step, blocks) {
                    self.uses_at[step][note.class.index()] += blocks;
                }
            }
        }
    }

    /// Computes anew what blocks are worth.
    pub(super) fn learn(&self, worths: &Worths) {
        let chances = self.chances();
        let column = |pick: &dyn Fn(&Chances) -> f32| {
            let mut own = [0.0; STEPS];
            for (own, chances) in own.iter_mut().zip(&chances) {
                *own = pick(chances);
            }
            best_rates(&own)
        };
        let mut shared = None;
        for (class, &known) in self.cohorts.came_to(0).iter().enumerate() {
            if known > 0.0 {
                worths.set(class, &column(&|chances| chances.classes[class]));
                continue;
            }
            let family = class::family(class);
            let rates = match shared {
                Some((known, rates)) if known == family => rates,
                _ => column(&|chances| chances.families[family]),
            };
            shared = Some((family, rates));
            worths.set(class, &rates);
        }
    }

    /// The chance of a use at each step.
    fn chances(&self) -> Vec<Chances> {
        let mut before = [FIRST_CHANCE; ENDS];
        let at = |step: usize| {
            let (uses, came) = (&self.uses_at[step], self.cohorts.came_to(step));
            let mut family_uses = [0.0; FAMILIES];
            let mut family_came = [0.0; FAMILIES];
            for class in 0..CLASSES {
                family_uses[class::family(class)] += uses[class];
                family_came[class::family(class)] += came[class];
            }
            let mut end_uses = [0.0; ENDS];
            let mut end_came = [0.0; ENDS];
            for family in 0..FAMILIES {
                end_uses[class::end(family)] += family_uses[family];
                end_came[class::end(family)] += family_came[family];
            }
            for end in 0..ENDS {
                before[end] = chance(end_uses[end], end_came[end], before[end], TRUST.end);
            }
            let families: [f32; FAMILIES] = std::array::from_fn(|family| {
                let expected = before[class::end(family)];
                chance(
                    family_uses[family],
                    family_came[family],
                    expected,
                    TRUST.family,
                )
            });
            let classes = std::array::from_fn(|class| {
                let expected = families[class::family(class)];
                chance(uses[class], came[class], expected, TRUST.class)
            });
            Chances { families, classes }
        };
        (0..STEPS).map(at).collect()
    }
}

/// Chances of a use at one step.
struct Chances {
    families: [f32; FAMILIES],
    classes: Row,
}

/// The chance that counts tell, beside one that was expected.
#[inline]
fn chance(uses: f32, came: f32, expected: f32, trust: f32) -> f32 {
    ((uses + trust * expected) / (came + trust)).clamp(0.0, 1.0)
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
    // Slopes are compared without a division: from one point, to two that both lie at less time held.
    let is_less_steep = |from: (f64, f64), to: (f64, f64), than: (f64, f64)| {
        (from.1 - to.1) * (from.0 - than.0) <= (from.1 - than.1) * (from.0 - to.0)
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
        while len > 1 && is_less_steep(point, curve[len - 1], curve[len - 2]) {
            len -= 1;
        }
        let (to_held, to_survivors) = curve[len - 1];
        let time = held - to_held;
        if time > 0.0 {
            rates[step] = ((survivors[step] - to_survivors) / time) as f32;
        }
        curve[len] = point;
        len += 1;
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::super::class::Class;
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
    fn a_block_that_is_certain_to_be_used_has_a_worth() {
        let mut chances = [0.0; STEPS];
        chances[0] = 1.0;
        let rates = best_rates(&chances);
        assert_eq!(rates[0], 2.0);
        assert!(rates.iter().all(|rate| rate.is_finite()));
    }

    #[test]
    fn what_returns_after_a_pause_is_worth_most_just_before() {
        let mut survival = Survival::new(100);
        let worths = Worths::new();
        let class = Class(5);
        for tick in 0..20_000 {
            let mut notes = vec![Note::entered(class, tick)];
            if tick >= 100 && tick % 4 == 0 {
                notes.push(Note::used(class, tick - 100, 100));
            }
            survival.study(&notes, &worths);
        }
        survival.learn(&worths);
        let worth = |age| worths.of(class, age);
        assert!(worth(90) > 2.0 * worth(40) && worth(40) > worth(2));
        assert!(worth(90) > 10.0 * worth(200));
        // Its kin are expected to be alike, where nothing is known of them.
        assert!(worths.of(Class(4), 90) > 2.0 * worths.of(Class(4), 2));
    }

    #[test]
    fn before_anything_is_known_what_was_used_last_is_worth_most() {
        let worths = Worths::new();
        Survival::new(100).learn(&worths);
        let ages = [4, 16, 64, 256, 1024, 4096];
        let worth = ages.map(|age| worths.of(Class(0), age));
        assert!(worth.is_sorted_by(|one, other| one > other), "{worth:?}");
        assert_eq!(worths.of(Class(60), 64), worth[2]);
    }
}
