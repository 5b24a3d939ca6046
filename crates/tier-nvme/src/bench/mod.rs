//! What a store is measured by: pieces of work, and who does them.
//!
//! A [`Work`] is so many values of a size, put as one durable batch or got so many at a time. A [`Contender`]
//! does it: [`RawLoop`] with nothing but the bytes, which is this machine's floor, and [`StoreContender`]
//! with an [`NvmeStore`](crate::NvmeStore), [`SlabContender`] with a [`BlockSlab`](crate::BlockSlab). Others implement the trait, so that all do the same work on the same bytes. Let them
//! take turns, round after round, and compare within a round: [`measure`] takes one turn.
//!
//! ```
//! use tier_nvme::bench::{Contender, RawLoop, StoreContender, Work, measure};
//!
//! let directory = tempfile::tempdir()?;
//! let work = Work::PUT_4_KIB.reduced(64);
//! let mut floor = RawLoop::fresh(directory.path())?;
//! let mut store = StoreContender::create(&directory.path().join("store"))?;
//! for turn in 0..3 {
//!     let raw = measure(&mut floor, &work, turn)?;
//!     let ours = measure(&mut store, &work, turn)?;
//!     println!("{:.2}", raw.elapsed.as_secs_f64() / ours.elapsed.as_secs_f64());
//! }
//! # Ok::<(), tier_nvme::bench::BenchError>(())
//! ```

mod contender;
mod noise;
mod raw_loop;
mod reopen;
mod slab;
mod store;
mod work;

pub use crate::real::{ProcessUsage, RawFile};
pub use contender::{BenchError, Contender, Sample, measure};
pub use noise::{fill_noise, is_value, mark_value};
pub use raw_loop::RawLoop;
pub use reopen::{Reopened, fill_until_killed, reopen};
pub use slab::SlabContender;
pub use store::StoreContender;
pub use work::{Action, Order, Work};
