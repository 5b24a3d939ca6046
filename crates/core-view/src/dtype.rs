//! The types that a tensor's elements can have.

use std::fmt;
use std::str::FromStr;

use crate::ViewError;

/// The type of a tensor's elements, sized in bits.
///
/// Elements narrower than a byte are packed without gaps, least significant bits first, so that
/// element `i` starts at bit `i × bits`.
///
/// ```
/// use core_view::DType;
///
/// assert_eq!(DType::BF16.bits(), 16);
/// assert_eq!(DType::F4.len_bytes(10), Some(5));
/// assert_eq!(DType::F4.len_bytes(9), None);
/// assert_eq!("F32".parse::<DType>()?, DType::F32);
/// # Ok::<(), core_view::ViewError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 64-bit integer.
    I64,
    /// IEEE 754 half precision.
    F16,
    /// Half-width float with the exponent of single precision.
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Complex number of two single-precision parts, real first.
    C64,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities (OCP OFP8).
    F8E4M3,
    /// 8-bit float, 5 exponent and 2 mantissa bits (OCP OFP8).
    F8E5M2,
    /// 8-bit power of two, the scale of OCP microscaling formats.
    F8E8M0,
    /// As [`DType::F8E4M3`] with another bias, no negative zero and one NaN.
    F8E4M3Fnuz,
    /// As [`DType::F8E5M2`] with another bias, no infinities, no negative zero and one NaN.
    F8E5M2Fnuz,
    /// 6-bit float, 2 exponent and 3 mantissa bits (OCP microscaling).
    F6E2M3,
    /// 6-bit float, 3 exponent and 2 mantissa bits (OCP microscaling).
    F6E3M2,
    /// 4-bit float, 2 exponent and 1 mantissa bit (OCP microscaling).
    F4,
}

/// A type with its width and its names in safetensors headers and in numpy (with `ml_dtypes`).
struct Row(DType, u8, &'static str, &'static str);

const TABLE: [Row; 22] = [
    Row(DType::Bool, 8, "BOOL", "bool"),
    Row(DType::U8, 8, "U8", "uint8"),
    Row(DType::I8, 8, "I8", "int8"),
    Row(DType::U16, 16, "U16", "uint16"),
    Row(DType::I16, 16, "I16", "int16"),
    Row(DType::U32, 32, "U32", "uint32"),
    Row(DType::I32, 32, "I32", "int32"),
    Row(DType::U64, 64, "U64", "uint64"),
    Row(DType::I64, 64, "I64", "int64"),
    Row(DType::F16, 16, "F16", "float16"),
    Row(DType::BF16, 16, "BF16", "bfloat16"),
    Row(DType::F32, 32, "F32", "float32"),
    Row(DType::F64, 64, "F64", "float64"),
    Row(DType::C64, 64, "C64", "complex64"),
    Row(DType::F8E4M3, 8, "F8_E4M3", "float8_e4m3fn"),
    Row(DType::F8E5M2, 8, "F8_E5M2", "float8_e5m2"),
    Row(DType::F8E8M0, 8, "F8_E8M0", "float8_e8m0fnu"),
    Row(DType::F8E4M3Fnuz, 8, "F8_E4M3FNUZ", "float8_e4m3fnuz"),
    Row(DType::F8E5M2Fnuz, 8, "F8_E5M2FNUZ", "float8_e5m2fnuz"),
    Row(DType::F6E2M3, 6, "F6_E2M3", "float6_e2m3fn"),
    Row(DType::F6E3M2, 6, "F6_E3M2", "float6_e3m2fn"),
    Row(DType::F4, 4, "F4", "float4_e2m1fn"),
];

impl DType {
    fn row(self) -> &'static Row {
        // The table is in the order of the variants, which a test holds.
        &TABLE[self as usize]
    }

    /// Every type, in a fixed order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        TABLE.iter().map(|row| row.0)
    }

    /// Width of one element in bits.
    pub fn bits(self) -> usize {
        usize::from(self.row().1)
    }

    /// Width of one element in bytes; `None` for types narrower than a byte.
    pub fn size_bytes(self) -> Option<usize> {
        self.bits().is_multiple_of(8).then_some(self.bits() / 8)
    }

    /// Bytes that `elements` elements take; `None` if that is not a whole number of bytes or too large.
    pub fn len_bytes(self, elements: usize) -> Option<usize> {
        let bits = (elements as u128) * (self.bits() as u128);
        bits.is_multiple_of(8)
            .then(|| usize::try_from(bits / 8).ok())
            .flatten()
    }

    /// Alignment in bytes that a typed view of the elements needs.
    pub fn alignment_bytes(self) -> usize {
        match self {
            Self::C64 => 4,
            _ => self.bits().div_ceil(8).next_power_of_two(),
        }
    }

    /// The name in a safetensors header, such as `BF16`.
    pub fn safetensors_name(self) -> &'static str {
        self.row().2
    }

    /// The type of that name in a safetensors header, `None` for a name that the format lacks.
    pub fn from_safetensors_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.2 == name).map(|row| row.0)
    }

    /// The name in numpy, extended by the `ml_dtypes` package, such as `bfloat16`.
    pub fn numpy_name(self) -> &'static str {
        self.row().3
    }

    /// The type of that name in numpy, `None` for a name that has no counterpart here.
    pub fn from_numpy_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.3 == name).map(|row| row.0)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.safetensors_name())
    }
}

impl FromStr for DType {
    type Err = ViewError;

    /// Takes the safetensors name or the numpy name.
    fn from_str(name: &str) -> Result<Self, ViewError> {
        Self::from_safetensors_name(name)
            .or_else(|| Self::from_numpy_name(name))
            .ok_or_else(|| ViewError::UnknownDType { name: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_variants() {
        for (i, dtype) in DType::all().enumerate() {
            assert_eq!(dtype as usize, i);
        }
        assert_eq!(DType::all().len(), DType::F4 as usize + 1);
    }

    #[test]
    fn names_lead_back_to_the_type() {
        for dtype in DType::all() {
            assert_eq!(dtype.safetensors_name().parse::<DType>().unwrap(), dtype);
            assert_eq!(dtype.numpy_name().parse::<DType>().unwrap(), dtype);
            assert_eq!(dtype.to_string(), dtype.safetensors_name());
        }
        let error = "F128".parse::<DType>().unwrap_err().to_string();
        assert!(error.contains("F128") && error.contains("BF16"), "{error}");
    }

    #[test]
    fn lengths_are_whole_bytes_or_nothing() {
        assert_eq!(DType::F6E2M3.len_bytes(4), Some(3));
        assert_eq!(DType::F6E2M3.len_bytes(3), None);
        assert_eq!(DType::F64.len_bytes(usize::MAX), None);
        assert_eq!(DType::F4.len_bytes(usize::MAX - 1), Some(usize::MAX / 2));
        assert_eq!(DType::F4.size_bytes(), None);
        assert_eq!(DType::C64.alignment_bytes(), 4);
    }
}
