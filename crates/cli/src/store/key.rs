//! Keys, which are bytes, as people and programs write them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use serde::Serialize;

use crate::error::CliError;
use crate::quantity::hex;

/// How keys are given on the command line.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct KeyForm {
    /// Keys and prefixes are given in hex digits, two for each byte.
    #[arg(long)]
    hex: bool,
}

impl KeyForm {
    /// The bytes of a key or prefix that was given.
    pub(super) fn parse(self, text: &OsStr) -> Result<Vec<u8>, CliError> {
        if !self.hex {
            return Ok(text.as_bytes().to_vec());
        }
        text.to_str()
            .and_then(unhex)
            .ok_or_else(|| CliError::Usage {
                reason: format!("{text:?} is no key in hex digits"),
            })
    }
}

/// The bytes that hex digits stand for.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs
        .iter()
        .map(|&[high, low]| u8::try_from((digit(high)? << 4) | digit(low)?).ok())
        .collect()
}

/// A key as text: what is not printable ASCII or another character is escaped.
pub(super) fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => text
            .chars()
            .flat_map(|character| match character {
                '\\' => character.escape_default().collect::<Vec<_>>(),
                character if character.is_control() => character.escape_default().collect(),
                character => vec![character],
            })
            .collect(),
        Err(_) => key.escape_ascii().to_string(),
    }
}

/// A key as `--json` prints it.
#[derive(Debug, Default, Serialize)]
pub(super) struct KeyObject {
    /// The key, if it is text.
    pub(super) key: Option<String>,
    /// Its bytes, if there is one.
    pub(super) key_hex: Option<String>,
}

impl KeyObject {
    pub(super) fn new(key: &[u8]) -> Self {
        Self {
            key: std::str::from_utf8(key).ok().map(str::to_owned),
            key_hex: Some(hex(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_digits_come_in_pairs() {
        assert_eq!(unhex("00fF10"), Some(vec![0, 255, 16]));
        assert_eq!(unhex(""), Some(Vec::new()));
        for wrong in ["0", "0g", "+1", "é0"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_shown_key_is_one_line() {
        assert_eq!(shown("layer/é".as_bytes()), "layer/é");
        assert_eq!(shown(b"a\nb\\\x1b"), "a\\nb\\\\\\u{1b}");
        assert_eq!(shown(b"\xff\n"), "\\xff\\n");
    }
}
