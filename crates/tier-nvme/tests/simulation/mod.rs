//! What the simulations have in common: branches that are counted, and that each of them has to have been taken.

use tier_nvme::sim::Seeds;

/// From so many seeds on, everything has to be met.
const SEEDS_MANY: u64 = 100;

/// Declares `Branches` once, for the structure and its rows.
macro_rules! branches {
    ($($field:ident: $row:literal,)*) => {
        /// How often each branch was taken.
        #[derive(Debug, Default, PartialEq)]
        struct Branches {
            $($field: u64,)*
        }

        impl Branches {
            fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($row, self.$field)),*]
            }
        }
    };
}

pub(crate) use branches;

/// Prints how often the seeds together met each thing, and demands that they did.
pub(crate) fn demand_all(seeds: &Seeds, rows: impl IntoIterator<Item = (&'static str, u64)>) {
    let mut never = Vec::new();
    for (name, count) in rows {
        println!("{count:>12}  {name}");
        if count == 0 {
            never.push(name);
        }
    }
    let few = seeds.is_replay() || seeds.count() < SEEDS_MANY;
    assert!(few || never.is_empty(), "never happened: {never:?}");
}
