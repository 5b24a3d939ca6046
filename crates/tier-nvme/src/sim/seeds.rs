//! Running a test over many seeds.

use std::convert::Infallible;
use std::num::NonZero;
use std::ops::Range;

/// The seeds of a run: those that the environment asks for, or a default number of them.
///
/// `STEPWELL_SEED` names one seed to replay; `STEPWELL_SEEDS`, or a variable that the test names, sets how
/// many run, and `STEPWELL_FIRST_SEED` where they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeds {
    range: Range<u64>,
    is_replay: bool,
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

impl Seeds {
    /// What the environment asks for, or the seeds below `count_default`.
    pub fn from_environment(count_default: u64) -> Self {
        Self::counted_by("STEPWELL_SEEDS", count_default)
    }

    /// As [`Seeds::from_environment`], with the count in a variable of its own: for tests whose seeds take
    /// so long that the others' count is too much for them.
    pub fn counted_by(variable: &str, count_default: u64) -> Self {
        Self::chosen(number, variable, count_default)
    }

    fn chosen(number: impl Fn(&str) -> Option<u64>, variable: &str, count_default: u64) -> Self {
        if let Some(seed) = number("STEPWELL_SEED") {
            return Self {
                range: seed..seed.saturating_add(1),
                is_replay: true,
            };
        }
        let first = number("STEPWELL_FIRST_SEED").unwrap_or(0);
        let count = number(variable).unwrap_or(count_default);
        Self::from(first..first.saturating_add(count))
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether one seed is replayed: too little to expect every kind of fault of it.
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// Runs `test` with each seed in turn. If it panics or fails, prints the seed, and `command` with it
    /// as the way to replay it.
    ///
    /// # Errors
    /// The first that `test` returns.
    ///
    /// # Panics
    /// As `test` does.
    pub fn each<E>(
        &self,
        command: &str,
        mut test: impl FnMut(u64) -> Result<(), E>,
    ) -> Result<(), E> {
        for seed in self.range.clone() {
            let failing = Failing { seed, command };
            let result = test(seed);
            if result.is_err() {
                failing.report();
            }
            std::mem::forget(failing);
            result?;
        }
        Ok(())
    }

    /// As [`Seeds::each`], with a test that says what is wrong by panicking.
    ///
    /// # Panics
    /// As `test` does.
    pub fn for_each(&self, command: &str, mut test: impl FnMut(u64)) {
        let Ok(()) = self.each(command, |seed| {
            test(seed);
            Ok::<(), Infallible>(())
        });
    }

    /// As [`Seeds::for_each`], on all cores: for tests whose seeds share nothing.
    ///
    /// # Panics
    /// If `test` does, once the other cores are done.
    pub fn for_each_on_all_cores(&self, command: &str, test: impl Fn(u64) + Sync) {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
        let share = self.count().div_ceil(cores).max(1);
        let test = &test;
        std::thread::scope(|scope| {
            let first = self.range.clone().step_by(share as usize);
            let threads: Vec<_> = first
                .map(|first| {
                    let last = first.saturating_add(share).min(self.range.end);
                    scope.spawn(move || Self::from(first..last).for_each(command, test))
                })
                .collect();
            for thread in threads {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }
}

/// These seeds, whatever the environment says.
impl From<Range<u64>> for Seeds {
    fn from(range: Range<u64>) -> Self {
        Self {
            range,
            is_replay: false,
        }
    }
}

/// Names the seed when it is dropped by a panic.
struct Failing<'a> {
    seed: u64,
    command: &'a str,
}

impl Failing<'_> {
    fn report(&self) {
        let Self { seed, command } = self;
        eprintln!("seed {seed} failed; replay it with: STEPWELL_SEED={seed} {command}");
    }
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.report();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_runs_once_and_the_first_failure_ends_the_run() {
        let seeds = Seeds::from(3..9);
        let mut seen = Vec::new();
        let run = seeds.each("test", |seed| {
            seen.push(seed);
            if seed == 5 { Err(seed) } else { Ok(()) }
        });
        assert_eq!((run, seen), (Err(5), vec![3, 4, 5]));
        assert_eq!(seeds.count(), 6);
    }

    #[test]
    fn all_cores_run_each_seed_once() {
        let seen = std::sync::Mutex::new(Vec::new());
        Seeds::from(3..10).for_each_on_all_cores("test", |seed| seen.lock().unwrap().push(seed));
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [3, 4, 5, 6, 7, 8, 9]);
        Seeds::from(3..3).for_each_on_all_cores("test", |_| unreachable!());
    }

    #[test]
    #[should_panic(expected = "the seventh fails")]
    fn a_failure_on_another_core_fails_the_run() {
        Seeds::from(0..8)
            .for_each_on_all_cores("test", |seed| assert_ne!(seed, 6, "the seventh fails"));
    }

    #[test]
    fn the_environment_sets_the_count_the_first_seed_or_one_to_replay() {
        let seeds = |set: &[(&str, u64)]| {
            let number = |name: &str| set.iter().find(|row| row.0 == name).map(|row| row.1);
            Seeds::chosen(number, "MODELS", 12)
        };
        assert_eq!(seeds(&[("STEPWELL_SEEDS", 3)]), Seeds::from(0..12));
        let set = [("MODELS", 3), ("STEPWELL_FIRST_SEED", 40)];
        assert_eq!(seeds(&set), Seeds::from(40..43));
        let replayed = seeds(&[
            ("STEPWELL_SEED", 7),
            ("MODELS", 3),
            ("STEPWELL_FIRST_SEED", 40),
        ]);
        assert_eq!((replayed.range.clone(), replayed.is_replay()), (7..8, true));
        assert!(!seeds(&set).is_replay());
    }
}
