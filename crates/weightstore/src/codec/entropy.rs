//! Zstandard frames: Huffman codes alone, or with matches.

#[cfg(feature = "zstd")]
use zstd::bulk::{Compressor, Decompressor};

use super::chunk::DecodeError;

/// Contexts of the library, made when first needed and used again.
#[derive(Default)]
pub(crate) struct Entropy {
    #[cfg(feature = "zstd")]
    huffman: Option<Compressor<'static>>,
    #[cfg(feature = "zstd")]
    matches: Option<Compressor<'static>>,
    #[cfg(feature = "zstd")]
    decoder: Option<Decompressor<'static>>,
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy")
    }
}

/// How a frame is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Huffman codes over the bytes, without a search for matches.
    Huffman,
    /// Matches and codes.
    Matches,
}

#[cfg(feature = "zstd")]
impl Entropy {
    /// The level of [`Effort::Matches`]: what is tried with it is short and repeats itself.
    const MATCHES_LEVEL: i32 = 3;

    /// Encodes into `target` and returns the length; `None` if it does not fit.
    pub(crate) fn encode(
        &mut self,
        effort: Effort,
        source: &[u8],
        target: &mut [u8],
    ) -> Option<usize> {
        let (slot, make): (_, fn() -> std::io::Result<Compressor<'static>>) = match effort {
            Effort::Huffman => (&mut self.huffman, huffman),
            Effort::Matches => (&mut self.matches, || {
                let mut compressor = Compressor::new(Self::MATCHES_LEVEL)?;
                compressor.include_contentsize(false)?;
                Ok(compressor)
            }),
        };
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(make().ok()?),
        };
        compressor.compress_to_buffer(source, target).ok()
    }

    /// Decodes frames that hold exactly as many bytes as `target` has.
    pub(crate) fn decode(&mut self, source: &[u8], target: &mut [u8]) -> Result<(), DecodeError> {
        let failed = |error| DecodeError::damaged(format!("no valid zstd frame: {error}"));
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            slot => slot.insert(Decompressor::new().map_err(failed)?),
        };
        let len = decoder
            .decompress_to_buffer(source, target)
            .map_err(failed)?;
        match len == target.len() {
            true => Ok(()),
            false => Err(DecodeError::damaged(format!(
                "zstd frames hold {len} bytes instead of {}",
                target.len()
            ))),
        }
    }
}

/// A context that makes Huffman codes only: steps so long that it finds no matches.
#[cfg(feature = "zstd")]
fn huffman() -> std::io::Result<Compressor<'static>> {
    use zstd::zstd_safe::{CParameter, ParamSwitch, Strategy};

    let mut compressor = Compressor::new(-50)?;
    for parameter in [
        CParameter::Strategy(Strategy::ZSTD_fast),
        CParameter::TargetLength(1 << 17),
        CParameter::HashLog(10),
        CParameter::WindowLog(20),
        CParameter::LiteralCompressionMode(ParamSwitch::Enable),
        CParameter::ContentSizeFlag(false),
    ] {
        compressor.set_parameter(parameter)?;
    }
    Ok(compressor)
}

#[cfg(not(feature = "zstd"))]
impl Entropy {
    #[expect(clippy::unused_self, reason = "the build with the library has state")]
    pub(crate) fn encode(&mut self, _: Effort, _: &[u8], _: &mut [u8]) -> Option<usize> {
        None
    }

    #[expect(clippy::unused_self, reason = "the build with the library has state")]
    pub(crate) fn decode(&mut self, _: &[u8], _: &mut [u8]) -> Result<(), DecodeError> {
        Err(DecodeError::Missing(crate::WeightError::CodecMissing {
            codec: "zstd",
        }))
    }
}
