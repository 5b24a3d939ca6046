//! Changes written as lines of JSON.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::key::unhex;
use crate::error::CliError;

/// Longest line in bytes: a value of a segment of the usual size, in base64.
const LINE_BYTES_MAX: u64 = 512 << 20;

/// A line: a key by `key` or `key_hex`, and what is to be under it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<String>,
    key_hex: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    file: Option<PathBuf>,
    #[serde(default)]
    delete: bool,
}

/// What is to be under a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
    Nothing,
}

/// Reads changes from lines of JSON.
#[derive(Debug)]
pub(super) struct ChangeLines<R> {
    reader: R,
    name: String,
    number: u64,
}

impl<R: BufRead> ChangeLines<R> {
    pub(super) fn new(reader: R, path: &Path) -> Self {
        Self {
            reader,
            name: path.display().to_string(),
            number: 0,
        }
    }

    /// The line that was read last, for what is found wrong with it later.
    pub(super) fn place(&self) -> String {
        format!("line {} of {}", self.number, self.name)
    }

    fn refuse(&self, reason: String) -> CliError {
        CliError::Line {
            place: self.place(),
            reason,
        }
    }

    fn parse(&self, text: &[u8]) -> Result<(Vec<u8>, Content), CliError> {
        let line: Line =
            serde_json::from_slice(text).map_err(|error| self.refuse(without_place(&error)))?;
        let key = match (line.key, line.key_hex) {
            (Some(key), None) => key.into_bytes(),
            (None, Some(digits)) => {
                unhex(&digits).ok_or_else(|| self.refuse(format!("{digits:?} is not hex")))?
            }
            _ => return Err(self.refuse("it needs one of `key` and `key_hex`".to_owned())),
        };
        let content = match (line.value, line.value_base64, line.file, line.delete) {
            (Some(text), None, None, false) => Content::Bytes(text.into_bytes()),
            (None, Some(digits), None, false) => match STANDARD.decode(digits) {
                Ok(bytes) => Content::Bytes(bytes),
                Err(error) => return Err(self.refuse(format!("`value_base64`: {error}"))),
            },
            (None, None, Some(path), false) => Content::File(path),
            (None, None, None, true) => Content::Nothing,
            _ => {
                let wanted = "it needs one of `value`, `value_base64`, `file` and `delete`";
                return Err(self.refuse(wanted.to_owned()));
            }
        };
        Ok((key, content))
    }
}

impl<R: BufRead> Iterator for ChangeLines<R> {
    type Item = Result<(Vec<u8>, Content), CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut text = Vec::new();
            let mut limited = std::io::Read::take(&mut self.reader, LINE_BYTES_MAX + 1);
            if let Err(source) = limited.read_until(b'\n', &mut text) {
                return Some(Err(CliError::file("read", &self.name, source)));
            }
            if text.is_empty() {
                return None;
            }
            self.number += 1;
            if text.len() as u64 > LINE_BYTES_MAX {
                let reason = format!("it is longer than {LINE_BYTES_MAX} bytes");
                return Some(Err(self.refuse(reason)));
            }
            if !text.trim_ascii().is_empty() {
                return Some(self.parse(&text));
            }
        }
    }
}

/// The parser counts lines of its own text, which is one.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((reason, _)) => format!("{reason} (column {})", error.column()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Result<(Vec<u8>, Content), CliError>> {
        ChangeLines::new(text.as_bytes(), Path::new("in")).collect()
    }

    #[test]
    fn each_form_is_read() {
        let text = r#"{"key":"a","value":"é"}

{"key_hex":"00ff","value_base64":"AP8="}
{"key":"c","file":"c.bin"}
{"key":"d","delete":true}"#;
        let read: Vec<_> = lines(text).into_iter().map(Result::unwrap).collect();
        let expected = [
            (b"a".to_vec(), Content::Bytes("é".into())),
            (vec![0, 255], Content::Bytes(vec![0, 255])),
            (b"c".to_vec(), Content::File("c.bin".into())),
            (b"d".to_vec(), Content::Nothing),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for wrong in [
            r#"{"key":"a"}"#,
            r#"{"value":"a"}"#,
            r#"{"key":"a","value":"b","delete":true}"#,
            r#"{"key":"a","key_hex":"00","value":"b"}"#,
            r#"{"key_hex":"0","value":"b"}"#,
            r#"{"key":"a","value_base64":"*"}"#,
            r#"{"key":"a","value":"b","more":1}"#,
            r#"{"key":"a","#,
            "[]",
            "\u{0}",
        ] {
            let text = format!("\n{}\n{wrong}\n", r#"{"key":"good","value":"1"}"#);
            let mut read = lines(&text);
            let error = read.pop().unwrap().unwrap_err().to_string();
            assert!(error.starts_with("line 3 of in "), "{error}");
            assert_eq!(read.len(), 1, "{wrong}");
        }
    }
}
