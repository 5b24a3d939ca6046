//! Engines: what carries out the reads, writes and syncs of files.
//!
//! An engine takes an [`Operation`] by value: the open file, the buffers and the completer are its own
//! until the kernel is done with them, whatever the caller drops in the meantime. At most `io_depth`
//! operations are outstanding; who submits more waits. Buffers go back before the outcome is known to
//! anybody, and outcomes are handed out on the engine's threads.

mod attempt;
mod depth;
mod lane;
mod open_file;
mod operation;
mod pool;
#[cfg(feature = "io-uring")]
pub(crate) mod ring;
mod statistics;

#[cfg(test)]
mod interference;
#[cfg(test)]
mod tests;

use std::fmt;

pub(crate) use attempt::run_attempts;
pub(crate) use lane::ReadLane;
pub(crate) use open_file::OpenFile;
pub(crate) use operation::Operation;
pub(crate) use pool::ThreadPool;
pub(crate) use statistics::Counters;
pub use statistics::EngineStatistics;

/// Carries out operations on files.
///
/// Dropping the last handle of an engine waits for what is outstanding, unless that happens on one of
/// the engine's own threads: then they finish it and end by themselves.
pub(crate) trait Engine: fmt::Debug + Send + Sync {
    /// The engine's name, as [`VolumeReport`](crate::VolumeReport) gives it.
    fn name(&self) -> &'static str;

    /// Takes an operation, waiting while `io_depth` of them are outstanding.
    ///
    /// On the engine's own threads (where outcomes are handed out) waiting would be for oneself: there
    /// the bound is twice as high, and an operation beyond it fails as busy.
    fn submit(&self, operation: Operation);

    /// A way for the calling thread to hand reads to the kernel itself, if there is one.
    fn lane(&self) -> Option<Box<dyn ReadLane>> {
        None
    }

    /// What the engine has done so far.
    fn statistics(&self) -> EngineStatistics;

    /// The counters, for work that is done on the caller's thread.
    fn counters(&self) -> &Counters;
}
