//! How a file is opened and written.

use std::str::FromStr;

use crate::{Codec, WeightError};

/// How the datasets of a file are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hdf5Compression {
    /// Not at all.
    None,
    /// DEFLATE, as h5py's `gzip`.
    Gzip {
        /// From 1 (fast) to 9 (small).
        level: u8,
    },
    /// h5py's `lzf`: fast, and only h5py and this crate read it.
    Lzf,
}

impl Default for Hdf5Compression {
    fn default() -> Self {
        Self::Gzip { level: 4 }
    }
}

impl Hdf5Compression {
    /// The compression of that name in h5py (`gzip`, `lzf` or none) with the level for gzip, 4 if none
    /// is given.
    ///
    /// # Errors
    /// [`WeightError::InvalidConfig`] for another name or a level that does not fit it.
    pub fn new(compression: Option<&str>, opts: Option<u8>) -> Result<Self, WeightError> {
        let chosen = match (compression, opts) {
            (None | Some("none"), None) => Self::None,
            (Some("lzf"), None) => Self::Lzf,
            (Some("gzip"), level) => Self::Gzip {
                level: level.unwrap_or(4),
            },
            (None | Some("none" | "lzf"), Some(_)) => {
                return Err(invalid("only gzip has levels; leave the options out"));
            }
            (Some(other), _) => {
                return Err(invalid(&format!("{other:?} is none of gzip, lzf, none")));
            }
        };
        chosen.checked()
    }

    pub(super) fn checked(self) -> Result<Self, WeightError> {
        match self {
            Self::Gzip { level: 1..=9 } | Self::None | Self::Lzf => Ok(self),
            Self::Gzip { level } => Err(invalid(&format!("gzip has levels 1 to 9, not {level}"))),
        }
    }

    /// What comes closest to it among the codecs.
    pub(super) fn codec(self) -> Codec {
        match self {
            Self::Gzip { level } => Codec::Gzip { level },
            Self::None | Self::Lzf => Codec::None,
        }
    }
}

fn invalid(reason: &str) -> WeightError {
    WeightError::InvalidConfig {
        field: "compression",
        reason: reason.to_owned(),
    }
}

impl FromStr for Hdf5Compression {
    type Err = WeightError;

    /// Takes `none`, `lzf`, `gzip` and `gzip:LEVEL`.
    fn from_str(text: &str) -> Result<Self, WeightError> {
        match text.split_once(':') {
            None => Self::new(Some(text), None),
            Some((name, level)) => {
                let level = level
                    .parse()
                    .map_err(|_| invalid(&format!("{level:?} is no level; take 1 to 9")))?;
                Self::new(Some(name), Some(level))
            }
        }
    }
}

/// What a file is opened for, by h5py's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Hdf5Mode {
    /// `r`: reading a file that exists.
    Read,
    /// `r+`: reading and writing a file that exists.
    ReadWrite,
    /// `w`: an empty file in place of whatever exists.
    Write,
    /// `a`: reading and writing, an empty file if none exists.
    #[default]
    Append,
}

impl FromStr for Hdf5Mode {
    type Err = WeightError;

    fn from_str(text: &str) -> Result<Self, WeightError> {
        match text {
            "r" => Ok(Self::Read),
            "r+" => Ok(Self::ReadWrite),
            "w" => Ok(Self::Write),
            "a" => Ok(Self::Append),
            _ => Err(WeightError::InvalidConfig {
                field: "mode",
                reason: format!("{text:?} is none of r, r+, w, a"),
            }),
        }
    }
}

/// How an [`Hdf5Store`](crate::Hdf5Store) is opened.
///
/// ```
/// use weightstore::{Hdf5Compression, Hdf5Config, Hdf5Mode};
///
/// let config = Hdf5Config::default()
///     .with_compression(Hdf5Compression::new(Some("gzip"), Some(9))?)
///     .with_mode("r+".parse::<Hdf5Mode>()?);
/// assert_eq!(config.mode, Hdf5Mode::ReadWrite);
/// # Ok::<(), weightstore::WeightError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hdf5Config {
    /// How new datasets are compressed; gzip of level 4 by default.
    pub compression: Hdf5Compression,
    /// What the file is opened for; `a` by default.
    pub mode: Hdf5Mode,
    /// Most bytes, before compression, that the file may hold for writing: a commit has all of them in
    /// memory beside those that are new, and what they are compressed to, three times. 4 GiB by default.
    pub content_bytes_max: u64,
}

impl Default for Hdf5Config {
    fn default() -> Self {
        Self {
            compression: Hdf5Compression::default(),
            mode: Hdf5Mode::default(),
            content_bytes_max: 4 << 30,
        }
    }
}

impl Hdf5Config {
    /// Sets [`compression`](Self::compression).
    #[must_use]
    pub fn with_compression(mut self, compression: Hdf5Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Sets [`mode`](Self::mode).
    #[must_use]
    pub fn with_mode(mut self, mode: Hdf5Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets [`content_bytes_max`](Self::content_bytes_max).
    #[must_use]
    pub fn with_content_bytes_max(mut self, bytes: u64) -> Self {
        self.content_bytes_max = bytes;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions_have_the_names_of_h5py() {
        let gzip = |level| Hdf5Compression::Gzip { level };
        for (text, expected) in [
            ("gzip", gzip(4)),
            ("gzip:1", gzip(1)),
            ("gzip:9", gzip(9)),
            ("lzf", Hdf5Compression::Lzf),
            ("none", Hdf5Compression::None),
        ] {
            assert_eq!(text.parse::<Hdf5Compression>().unwrap(), expected, "{text}");
        }
        for text in ["gzip:0", "gzip:10", "gzip:x", "lzf:4", "none:1", "zstd", ""] {
            assert!(text.parse::<Hdf5Compression>().is_err(), "{text}");
        }
    }

    #[test]
    fn modes_have_the_names_of_h5py() {
        assert_eq!("r+".parse::<Hdf5Mode>().unwrap(), Hdf5Mode::ReadWrite);
        assert!("x".parse::<Hdf5Mode>().is_err());
    }
}
