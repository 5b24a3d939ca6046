//! What the payload of each kind holds.

use std::io::Read;

use flate2::read::ZlibDecoder;
use serde_json::Value;

use super::half_float::widen;
use super::{metadata, refused};
use crate::{Delta, DeltaKind, WeightError};

/// One float32 for each element, and what it is.
#[derive(Debug)]
pub(crate) enum Payload {
    /// To be added to the reference by numpy's rules.
    Difference(Vec<f32>),
    /// To be added to the reference as float32.
    SingleDifference(Vec<f32>),
    /// The bits in which the element differs from the reference, both as float32.
    ExclusiveOr(Vec<f32>),
}

impl Payload {
    /// Decodes the payload of a delta. No more memory is used than the tensor has elements for.
    pub(crate) fn decode(delta: &Delta) -> Result<Self, WeightError> {
        let decoder = Decoder::new(delta)?;
        match delta.kind() {
            DeltaKind::Float32Raw => decoder.raw().map(Self::Difference),
            DeltaKind::Compressed => decoder.compressed().map(Self::Difference),
            DeltaKind::Int8Quantized => decoder.quantized::<1>().map(Self::Difference),
            DeltaKind::Int16Quantized => decoder.quantized::<2>().map(Self::Difference),
            DeltaKind::Sparse => decoder.sparse().map(Self::Difference),
            DeltaKind::PerAxisScaled => decoder.per_axis_scaled().map(Self::Difference),
            DeltaKind::ExponentMantissa => decoder.exponent_mantissa().map(Self::SingleDifference),
            DeltaKind::XorFloat32 => decoder.xor_float32().map(Self::ExclusiveOr),
            DeltaKind::XorBfloat16 => decoder.xor_bfloat16().map(Self::ExclusiveOr),
            DeltaKind::OrderedDifference => Err(decoder.refuse("it is none of Coral's kinds")),
        }
    }
}

struct Decoder<'a> {
    delta: &'a Delta,
    metadata: Value,
    elements: usize,
}

impl<'a> Decoder<'a> {
    fn new(delta: &'a Delta) -> Result<Self, WeightError> {
        let text = match delta.metadata() {
            "" => "{}",
            text => text,
        };
        let elements = crate::tensor::len_bytes(core_view::DType::U8, delta.original_shape());
        let elements = elements.and_then(|elements| usize::try_from(elements).ok());
        let kind = delta.kind();
        Ok(Self {
            delta,
            metadata: metadata::parse(text)
                .ok_or_else(|| refused(kind, "its metadata is not JSON"))?,
            elements: elements.ok_or_else(|| refused(kind, "its shape is too large"))?,
        })
    }

    fn refuse(&self, reason: impl Into<String>) -> WeightError {
        refused(self.delta.kind(), reason)
    }

    /// A number of the metadata.
    fn number(&self, field: &str) -> Result<f64, WeightError> {
        self.metadata
            .get(field)
            .and_then(metadata::number)
            .ok_or_else(|| self.refuse(format!("its metadata has no number {field:?}")))
    }

    /// A count of the metadata.
    fn count(&self, field: &str) -> Result<usize, WeightError> {
        self.metadata
            .get(field)
            .and_then(Value::as_u64)
            .and_then(|count| usize::try_from(count).ok())
            .ok_or_else(|| self.refuse(format!("its metadata has no count {field:?}")))
    }

    /// Holds the shape in the metadata against the delta's.
    fn check_shape(&self) -> Result<(), WeightError> {
        let stated = self
            .metadata
            .get("original_shape")
            .and_then(Value::as_array);
        let expected = self.delta.original_shape();
        let fits = stated.is_some_and(|stated| {
            stated.len() == expected.len()
                && stated
                    .iter()
                    .zip(expected)
                    .all(|(stated, &expected)| stated.as_u64() == Some(expected))
        });
        match fits {
            true => Ok(()),
            false => Err(self.refuse("the shape in its metadata is not its own")),
        }
    }

    /// The payload, if it has this many bytes for each element.
    fn whole(&self, width: usize) -> Result<&'a [u8], WeightError> {
        let payload = self.delta.payload();
        match self.elements.checked_mul(width) == Some(payload.len()) {
            true => Ok(payload),
            false => Err(self.refuse(format!(
                "its payload has {} bytes for {} elements",
                payload.len(),
                self.elements
            ))),
        }
    }

    /// A zlib stream of exactly `len` bytes.
    fn inflate(&self, stream: &[u8], len: Option<usize>) -> Result<Vec<u8>, WeightError> {
        let failed = |reason: &str| self.refuse(format!("a zlib stream of it {reason}"));
        let len = len.ok_or_else(|| failed("is too long"))?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| WeightError::OutOfMemory {
                what: format!("a {} delta", self.delta.kind().name()),
                requested_bytes: len as u64,
            })?;
        let mut decoder = ZlibDecoder::new(stream);
        let mut limited = decoder.by_ref().take(len as u64);
        let damaged = |_| failed("is damaged");
        limited.read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() != len {
            return Err(failed("is too short"));
        }
        // The checksum behind the last byte is compared when one more is asked for.
        match decoder.read(&mut [0]).map_err(damaged)? {
            0 => Ok(bytes),
            _ => Err(failed("is too long")),
        }
    }

    fn raw(&self) -> Result<Vec<f32>, WeightError> {
        Ok(floats(self.whole(4)?))
    }

    fn compressed(&self) -> Result<Vec<f32>, WeightError> {
        self.check_shape()?;
        let bytes = self.inflate(self.delta.payload(), self.elements.checked_mul(4))?;
        Ok(floats(&bytes))
    }

    /// Integers of `WIDTH` bytes, a scale and an offset.
    fn quantized<const WIDTH: usize>(&self) -> Result<Vec<f32>, WeightError> {
        // numpy takes a number of Python's as one of the array's type.
        let (scale, offset) = (self.number("scale")? as f32, self.number("offset")? as f32);
        let levels = self
            .whole(WIDTH)?
            .chunks_exact(WIDTH)
            .map(|level| match *level {
                [low] => f32::from(low.cast_signed()),
                [low, high] => f32::from(i16::from_le_bytes([low, high])),
                _ => 0.0,
            });
        Ok(levels.map(|level| level * scale + offset).collect())
    }

    /// Pairs of a position, as float32, and a value; zero elsewhere.
    fn sparse(&self) -> Result<Vec<f32>, WeightError> {
        let payload = self.delta.payload();
        if !payload.len().is_multiple_of(8) {
            return Err(self.refuse("its payload is not one of pairs"));
        }
        let mut values = vec![0.0; self.elements];
        for pair in floats(payload).chunks_exact(2) {
            let [position, value] = *pair else { continue };
            // The fraction is cut off, and −0.5 is zero then.
            let target = (position > -1.0)
                .then_some(position as usize)
                .and_then(|position| values.get_mut(position));
            *target.ok_or_else(|| self.refuse("it has a position outside of the tensor"))? = value;
        }
        Ok(values)
    }

    /// Splits off a stream whose length is the little-endian number at `at`.
    fn length_at(&self, at: usize) -> Result<usize, WeightError> {
        let bytes = self.delta.payload().get(at..at + 4);
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(|bytes| u32::from_le_bytes(bytes) as usize)
            .ok_or_else(|| self.refuse("its payload is too short"))
    }

    fn split(&self, rest: &'a [u8], len: usize) -> Result<(&'a [u8], &'a [u8]), WeightError> {
        rest.split_at_checked(len)
            .ok_or_else(|| self.refuse("its payload is too short"))
    }

    /// Two streams, the first with its length in front, of these widths.
    fn two_streams(&self, widths: [usize; 2]) -> Result<[Vec<u8>; 2], WeightError> {
        self.check_shape()?;
        let len = self.length_at(0)?;
        let rest = self.delta.payload().get(4..).unwrap_or_default();
        let (first, second) = self.split(rest, len)?;
        let [first_width, second_width] = widths;
        Ok([
            self.inflate(first, self.elements.checked_mul(first_width))?,
            self.inflate(second, self.elements.checked_mul(second_width))?,
        ])
    }

    fn xor_float32(&self) -> Result<Vec<f32>, WeightError> {
        let [upper, lower] = self.two_streams([2, 4])?;
        Ok(shorts(&upper)
            .zip(words(&lower))
            .map(|(upper, lower)| f32::from_bits(u32::from(upper) << 23 | lower))
            .collect())
    }

    fn xor_bfloat16(&self) -> Result<Vec<f32>, WeightError> {
        let [upper, lower] = self.two_streams([2, 2])?;
        Ok(shorts(&upper)
            .zip(shorts(&lower))
            .map(|(upper, lower)| f32::from_bits(u32::from(upper) << 16 | u32::from(lower)))
            .collect())
    }

    fn exponent_mantissa(&self) -> Result<Vec<f32>, WeightError> {
        self.check_shape()?;
        if self.count("num_elements")? != self.elements {
            return Err(self.refuse("the number of elements in its metadata is not its own"));
        }
        let (signs_len, exponents_len) = (self.length_at(0)?, self.length_at(4)?);
        let rest = self.delta.payload().get(8..).unwrap_or_default();
        let (signs, rest) = self.split(rest, signs_len)?;
        let (exponents, mantissas) = self.split(rest, exponents_len)?;
        let signs = self.inflate(signs, Some(self.elements.div_ceil(8)))?;
        let exponents = self.inflate(exponents, Some(self.elements))?;
        let mantissas = self.inflate(mantissas, self.elements.checked_mul(4))?;
        Ok(bits(&signs)
            .zip(exponents)
            .zip(words(&mantissas))
            .map(|((sign, exponent), mantissa)| {
                f32::from_bits(u32::from(sign) << 31 | u32::from(exponent) << 23 | mantissa)
            })
            .collect())
    }

    /// Scales of the rows and of the columns in half precision, then a sign for each element.
    fn per_axis_scaled(&self) -> Result<Vec<f32>, WeightError> {
        let (rows, columns) = (self.count("num_rows")?, self.count("num_cols")?);
        let elements = rows.checked_mul(columns);
        if elements != Some(self.elements) || self.count("num_elements")? != self.elements {
            return Err(self.refuse("its rows and columns are not those of its shape"));
        }
        let too_many = || self.refuse("it has too many rows or columns");
        let payload = self.delta.payload();
        let row_bytes = rows.checked_mul(2).ok_or_else(too_many)?;
        let column_bytes = columns.checked_mul(2).ok_or_else(too_many)?;
        let (row_scales, rest) = self.split(payload, row_bytes)?;
        let (column_scales, signs) = self.split(rest, column_bytes)?;
        if signs.len() < self.elements.div_ceil(8) {
            return Err(self.refuse("it has too few signs"));
        }
        let scales = shorts(row_scales)
            .flat_map(|row| shorts(column_scales).map(move |column| (widen(row), widen(column))));
        let signs = bits(signs).map(|sign| f32::from(sign) * 2.0 - 1.0);
        Ok(scales
            .zip(signs)
            .map(|((row, column), sign)| sign * row * column)
            .collect())
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    words(bytes).map(f32::from_bits).collect()
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u32::from_le_bytes(*word))
}

fn shorts(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (shorts, _) = bytes.as_chunks();
    shorts.iter().map(|short| u16::from_le_bytes(*short))
}

/// The bits of each byte, the highest first.
fn bits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes
        .iter()
        .flat_map(|byte| (0..8).map(move |at| byte >> (7 - at) & 1))
}
