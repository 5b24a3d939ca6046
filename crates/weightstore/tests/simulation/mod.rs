//! What the simulations of stores have in common: a life for each seed, and events that somebody has to have met.

use std::fmt::Debug;
use std::ops::AddAssign;

use tier_nvme::sim::{FaultCounts, Seeds};

/// Operations of a life.
pub(crate) const OPERATIONS: u64 = 200;

/// Seeds of a run unless `STEPWELL_MODEL_SEEDS` says otherwise.
const SEEDS_DEFAULT: u64 = 12;

/// The faults that a disk admits to.
const FAULTS: [&str; 12] = [
    "power losses",
    "sectors kept",
    "sectors lost",
    "writes torn",
    "directory changes kept",
    "directory changes lost",
    "read errors",
    "write errors",
    "sync errors",
    "no space",
    "short transfers",
    "interruptions",
];

/// How often each thing happened in a life, or in several.
pub(crate) trait Tally: AddAssign + Copy + Debug + Default + PartialEq {
    /// Each count with its name.
    fn rows(&self) -> Vec<(&'static str, u64)>;

    /// Operations that were begun.
    fn operations(&self) -> u64;
}

/// Declares `Counts` once, for the structure, its rows and its sum. One of the counts is `operations`.
macro_rules! counts {
    ($($field:ident: $row:literal,)*) => {
        /// How often each thing happened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct Counts {
            $(pub(crate) $field: u64,)*
        }

        impl std::ops::AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }

        impl $crate::simulation::Tally for Counts {
            fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($row, self.$field)),*]
            }

            fn operations(&self) -> u64 {
                self.operations
            }
        }
    };
}

pub(crate) use counts;

/// One store on a disk that fails, over and over.
pub(crate) struct Simulation<C> {
    /// Runs the test program.
    pub(crate) command: &'static str,
    /// What a seed makes of a store and its disk.
    pub(crate) life: fn(u64) -> (C, FaultCounts),
    /// What has to be met from so many seeds on only.
    pub(crate) rare: &'static [&'static str],
    pub(crate) seeds_many: u64,
}

impl<C: Tally> Simulation<C> {
    /// Lives the seeds of the environment, and demands that together they met everything they have to.
    pub(crate) fn run(&self) {
        let seeds = Seeds::counted_by("STEPWELL_MODEL_SEEDS", SEEDS_DEFAULT);
        let (mut counts, mut faults) = (C::default(), FaultCounts::default());
        seeds.for_each(self.command, |seed| {
            let (lived, met) = self.live(seed);
            counts += lived;
            faults += met;
        });
        let faults = faults.rows().into_iter();
        let faults = faults.filter(|(name, _)| FAULTS.contains(name));
        println!("{} seeds", seeds.count());
        let many = seeds.count() >= self.seeds_many;
        let mut never = Vec::new();
        for (name, count) in counts.rows().into_iter().chain(faults) {
            println!("  {count:>9}  {name}");
            if count == 0 && (many || !self.rare.contains(&name)) {
                never.push(name);
            }
        }
        assert!(
            never.is_empty() || seeds.is_replay(),
            "never seen: {never:?}"
        );
    }

    /// Lives each of these seeds twice, and demands the same of both lives.
    pub(crate) fn run_again(&self, seeds: std::ops::Range<u64>) {
        Seeds::from(seeds).for_each(self.command, |seed| {
            assert_eq!(self.live(seed), self.live(seed));
        });
    }

    fn live(&self, seed: u64) -> (C, FaultCounts) {
        let (counts, faults) = (self.life)(seed);
        assert!(counts.operations() >= OPERATIONS && faults.crashes > 0);
        (counts, faults)
    }
}
