//! Reading a trace, a line at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{TraceError, TraceRequest};

/// No line may be longer: a request of a million blocks has 8 MiB.
const LINE_LEN_MAX_BYTES: u64 = 16 << 20;

/// Yields the requests of a trace; memory does not grow with its length. After an error it ends.
#[derive(Debug)]
pub struct TraceReader<R> {
    source: R,
    path: String,
    line: u64,
    buffer: Vec<u8>,
    ended: bool,
}

impl TraceReader<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`TraceError::Io`] if it can't be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self::new(BufReader::new(file), name)),
            Err(source) => Err(TraceError::Io {
                operation: "open",
                path: name,
                source,
            }),
        }
    }
}

impl<R: BufRead> TraceReader<R> {
    /// Reads from `source`, which errors call `name`.
    pub fn new(source: R, name: impl Into<String>) -> Self {
        Self {
            source,
            path: name.into(),
            line: 0,
            buffer: Vec::new(),
            ended: false,
        }
    }

    fn next_request(&mut self) -> Result<Option<TraceRequest>, TraceError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let mut bounded = (&mut self.source).take(LINE_LEN_MAX_BYTES);
            let read = bounded.read_until(b'\n', &mut self.buffer);
            let len_bytes = read.map_err(|source| TraceError::Io {
                operation: "read",
                path: self.path.clone(),
                source,
            })?;
            if len_bytes == 0 {
                return Ok(None);
            }
            if len_bytes as u64 == LINE_LEN_MAX_BYTES && !self.buffer.ends_with(b"\n") {
                return Err(self.bad_line(format!("longer than {LINE_LEN_MAX_BYTES} bytes")));
            }
            if self.buffer.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            // The parser would take a list of the values too.
            if !self.buffer.trim_ascii_start().starts_with(b"{") {
                return Err(self.bad_line("no JSON object, which begins with `{`".to_owned()));
            }
            return match serde_json::from_slice(self.buffer.trim_ascii_end()) {
                Ok(request) => Ok(Some(request)),
                Err(error) => Err(self.bad_line(in_line(&error))),
            };
        }
    }

    fn bad_line(&self, reason: String) -> TraceError {
        TraceError::Line {
            path: self.path.clone(),
            line: self.line,
            reason,
        }
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<TraceRequest, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_request().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// What the parser says, without the line number that it counts within the line.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => format!("{} at column {}", &text[..end], error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"timestamp": 1, "input_length": 2, "output_length": 3, "hash_ids": [4]}"#;

    fn outcome(text: &str) -> Vec<Result<TraceRequest, String>> {
        TraceReader::new(text.as_bytes(), "t.jsonl")
            .map(|request| request.map_err(|error| error.to_string()))
            .collect()
    }

    #[test]
    fn a_bad_line_is_named_by_file_and_number_and_ends_the_trace() {
        for (bad, reason) in [
            ("nonsense", "no JSON object"),
            ("[1, 2, 3, [4]]", "no JSON object"),
            (&format!("\u{feff}{GOOD}"), "no JSON object"),
            (r#"{"timestamp": 1}"#, "missing field `input_length`"),
            (&GOOD.replace("[4]", "[-4]"), "invalid value: integer `-4`"),
            (&GOOD.replace("[4]", "4"), "invalid type: integer `4`"),
            (&GOOD[..30], "EOF while parsing"),
            ("{\"timestamp\": \"\u{fffd}\"}", "invalid type: string"),
        ] {
            let outcome = outcome(&format!("{GOOD}\n\n{bad}\n{GOOD}\n"));
            assert_eq!(outcome.len(), 2, "{bad}");
            assert!(outcome[0].is_ok(), "{bad}");
            let message = outcome[1].as_ref().err().cloned().unwrap_or_default();
            assert!(
                message.starts_with(&format!("t.jsonl:3: {reason}")),
                "{message}"
            );
        }
    }

    #[test]
    fn unknown_fields_and_a_missing_last_newline_are_no_errors() {
        let extended = GOOD.replace('}', r#", "type": "text"}"#);
        assert_eq!(outcome(&extended), outcome(&format!("{GOOD}\n")));
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error() {
        let mut reader = TraceReader::new(&[b'{', 0xff, 0xfe, b'}'][..], "t");
        assert!(matches!(
            reader.next(),
            Some(Err(TraceError::Line { line: 1, .. }))
        ));
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_memory() {
        let mut reader = TraceReader::new(BufReader::new(std::io::repeat(b' ')), "t");
        assert!(matches!(
            reader.next(),
            Some(Err(TraceError::Line { line: 1, .. }))
        ));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = TraceReader::open("no/such/trace")
            .err()
            .map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("no/such/trace")));
    }
}
