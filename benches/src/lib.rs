//! An interleaving benchmark harness shared by the benchmarks in this folder.
//!
//! The cases of a [`Group`] do the same work in different ways. They run in turns, round after round
//! (A B C, A B C, …), so that a change of the machine's speed meets all of them alike, and what is
//! reported is the median over the rounds: of the time per operation, and of the ratio to the
//! reference case of the same round.
//!
//! Under `cargo bench` the rounds are long enough to measure. When a benchmark is run as a test, or
//! with `--quick`, each case runs a few times only, to show that it works; bars are not judged then.
//! `--json` prints one object for each group; `--filter TEXT` runs the groups whose title has the
//! text; `--rounds N` and `--round-ms N` set the effort.
//!
//! ```
//! use stepwell_benches::{Bench, Settings};
//!
//! let mut bench = Bench::new("sums", Settings::quick());
//! let numbers: Vec<u64> = (0..1000).collect();
//! let mut group = bench.group("sum of 1000 numbers");
//! group.case("fold", || std::hint::black_box(&numbers).iter().fold(0, |sum, n| sum + n));
//! group.case("sum", || std::hint::black_box(&numbers).iter().sum::<u64>());
//! group.bar_at_least("sum is not slower", "sum", "fold", 0.9);
//! let report = group.run();
//! assert_eq!(report.cases.len(), 2);
//! assert!(bench.finish());
//! ```

#![forbid(unsafe_code)]

mod group;
mod report;
mod settings;

pub use group::{Bench, Group};
pub use report::{BarReport, CaseReport, GroupReport};
pub use settings::Settings;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
