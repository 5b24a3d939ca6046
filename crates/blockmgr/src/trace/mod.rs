//! What a service was asked, request by request: traces read, written and made.
//!
//! The format is Mooncake's: a JSON object a line with `timestamp` (milliseconds), `input_length` and
//! `output_length` (tokens) and `hash_ids`, one for each block of 512 tokens of the prompt, where equal ids mean
//! equal blocks after equal prefixes. Other fields are ignored.
//!
//! ```
//! use blockmgr::trace::{TraceReader, TraceRequest};
//!
//! let line = r#"{"timestamp": 7, "input_length": 600, "output_length": 9, "hash_ids": [0, 14]}"#;
//! let requests: Vec<TraceRequest> =
//!     TraceReader::new(line.as_bytes(), "example").collect::<Result<_, _>>()?;
//! assert_eq!(requests[0].hash_ids, [0, 14]);
//! # Ok::<(), blockmgr::trace::TraceError>(())
//! ```

pub mod generate;
mod reader;
mod request;
mod writer;

pub use crate::error::TraceError;
pub use reader::TraceReader;
pub use request::{BLOCK_TOKENS, TraceRequest};
pub use writer::TraceWriter;
