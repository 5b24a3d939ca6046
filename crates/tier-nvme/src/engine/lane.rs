//! Reads that a thread starts and collects itself.

use core_view::BufferMut;
use core_view::contract::Failure;

use super::{Engine, Operation};

/// Hands the reads of one thread to the kernel, and collects them.
///
/// Dropping it waits for what the kernel still has.
pub(crate) trait ReadLane {
    /// Whether it belongs to `engine`.
    fn is_of(&self, engine: &dyn Engine) -> bool;

    /// Takes a read; it is under way at the latest when the next outcome is asked for.
    fn push(&mut self, tag: u64, operation: Operation);

    /// Waits for a read to end; `None` if there is none.
    fn next(&mut self) -> Option<(u64, Result<BufferMut, Failure>)>;
}
