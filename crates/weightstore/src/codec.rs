//! How chunks are encoded.

mod bits;
pub(crate) mod block;
pub(crate) mod blocks;
pub(crate) mod chunk;
mod entropy;
pub(crate) mod form;
mod pairs;
mod planes;
mod prefix_code;
mod rans;
pub(crate) mod reader;
pub(crate) mod sink;
mod sparse;
mod statistics;
mod stream;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use crate::WeightError;

/// The codec that is asked for when content is stored.
///
/// It is tried on each chunk of 1 MiB by itself; a chunk that it does not shrink by a sixteenth is
/// stored as it is.
///
/// ```
/// use weightstore::Codec;
///
/// assert_eq!("gzip".parse::<Codec>()?, Codec::Gzip { level: 4 });
/// assert_eq!("gzip:9".parse::<Codec>()?.to_string(), "gzip:9");
/// # Ok::<(), weightstore::WeightError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Codec {
    /// As it is.
    #[default]
    None,
    /// DEFLATE; the names in the seeds and in Coral say gzip.
    Gzip {
        /// 1 (fast) to 9 (small).
        level: u8,
    },
    /// LZ4 blocks.
    Lz4,
    /// What suits the type of the elements and, block by block, the content: floats are split into
    /// exponents and mantissas, of which each is coded in the smallest way, if any is smaller;
    /// constant and sparse content takes next to nothing. Fast, and smaller than the others for weights.
    /// Without the feature `zstd` repetitions are not looked for, and content that was stored with it
    /// can't be read.
    Auto,
}

impl Codec {
    /// The level of [`Codec::Gzip`] where none is given.
    pub const GZIP_LEVEL_DEFAULT: u8 = 4;

    /// Checks that the codec is in this build and its settings are in range.
    ///
    /// # Errors
    /// [`WeightError::CodecMissing`], [`WeightError::InvalidConfig`].
    pub fn check(self) -> Result<(), WeightError> {
        match self {
            Self::None | Self::Auto => Ok(()),
            Self::Gzip { level } if !(1..=9).contains(&level) => Err(WeightError::InvalidConfig {
                field: "gzip level",
                reason: format!("{level} is not 1 to 9"),
            }),
            Self::Gzip { .. } if cfg!(feature = "gzip") => Ok(()),
            Self::Lz4 if cfg!(feature = "lz4") => Ok(()),
            Self::Gzip { .. } => Err(WeightError::CodecMissing { codec: "gzip" }),
            Self::Lz4 => Err(WeightError::CodecMissing { codec: "lz4" }),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Gzip { level } => write!(f, "gzip:{level}"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for Codec {
    type Err = WeightError;

    /// Takes `auto`, `none`, `gzip`, `gzip:LEVEL` and `lz4`.
    fn from_str(text: &str) -> Result<Self, WeightError> {
        let refused = || WeightError::InvalidConfig {
            field: "codec",
            reason: format!("{text:?} is none of auto, none, gzip, gzip:1 to gzip:9, lz4"),
        };
        let codec = match text.split_once(':') {
            None => match text {
                "none" => Self::None,
                "gzip" => Self::Gzip {
                    level: Self::GZIP_LEVEL_DEFAULT,
                },
                "lz4" => Self::Lz4,
                "auto" => Self::Auto,
                _ => return Err(refused()),
            },
            Some(("gzip", level)) => Self::Gzip {
                level: level.parse().map_err(|_| refused())?,
            },
            Some(_) => return Err(refused()),
        };
        codec.check()?;
        Ok(codec)
    }
}
