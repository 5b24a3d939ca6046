//! The seam through which tests disturb the calls of either engine.

use std::fmt;

use super::Operation;
use super::attempt::Disturbance;

/// Asked before every call to the kernel, on the thread that makes it.
pub(crate) trait Interference: fmt::Debug + Send + Sync {
    /// What to do to the next call of `operation`; waiting here holds the call back.
    fn before_call(&self, operation: &Operation) -> Disturbance;
}
