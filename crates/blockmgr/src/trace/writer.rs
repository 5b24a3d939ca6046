//! Writing a trace.

use std::io::{self, Write};

use super::TraceRequest;

/// Writes requests, a line each, as [`TraceReader`](super::TraceReader) reads them.
#[derive(Debug)]
pub struct TraceWriter<W> {
    target: W,
}

impl<W: Write> TraceWriter<W> {
    /// Writes to `target`, in small pieces: give it a buffered one.
    pub fn new(target: W) -> Self {
        Self { target }
    }

    /// Adds a request.
    ///
    /// # Errors
    /// What the target reports.
    pub fn write(&mut self, request: &TraceRequest) -> io::Result<()> {
        serde_json::to_writer(&mut self.target, request)?;
        self.target.write_all(b"\n")
    }

    /// Flushes and gives the target back.
    ///
    /// # Errors
    /// What the target reports.
    pub fn finish(mut self) -> io::Result<W> {
        self.target.flush()?;
        Ok(self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceReader;

    #[test]
    fn what_is_written_is_read_again() -> Result<(), Box<dyn std::error::Error>> {
        let requests = [
            TraceRequest::default(),
            TraceRequest {
                timestamp_ms: u64::MAX,
                input_tokens: 5,
                output_tokens: 6,
                hash_ids: vec![0, u64::MAX, 7],
            },
        ];
        let mut writer = TraceWriter::new(Vec::new());
        for request in &requests {
            writer.write(request)?;
        }
        let text = writer.finish()?;
        let read: Vec<_> = TraceReader::new(&text[..], "written").collect::<Result<_, _>>()?;
        assert_eq!(read, requests);
        Ok(())
    }
}
