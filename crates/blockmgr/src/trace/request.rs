//! One line of a trace.

use serde::{Deserialize, Serialize};

/// Tokens that a block of a trace stands for.
pub const BLOCK_TOKENS: u64 = 512;

/// A request as a trace tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRequest {
    /// Time of arrival, milliseconds from the start of the trace.
    #[serde(rename = "timestamp")]
    pub timestamp_ms: u64,
    /// Length of the prompt.
    #[serde(rename = "input_length")]
    pub input_tokens: u64,
    /// Length of the answer.
    #[serde(rename = "output_length")]
    pub output_tokens: u64,
    /// The blocks of the prompt, first to last; the last may be partly filled.
    pub hash_ids: Vec<u64>,
}
