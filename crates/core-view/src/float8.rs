//! 8-bit floating-point elements.

use std::fmt;

/// An 8-bit float of 4 exponent and 3 mantissa bits without infinities, as its bits (OCP OFP8).
///
/// ```
/// use core_view::F8E4M3;
///
/// assert_eq!(F8E4M3(0x7e).to_f32(), 448.0);
/// assert!(F8E4M3(0xff).to_f32().is_nan());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct F8E4M3(pub u8);

/// An 8-bit float of 5 exponent and 2 mantissa bits, as its bits (OCP OFP8).
///
/// ```
/// use core_view::F8E5M2;
///
/// assert_eq!(F8E5M2(0x7b).to_f32(), 57344.0);
/// assert_eq!(F8E5M2(0xfc).to_f32(), f32::NEG_INFINITY);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct F8E5M2(pub u8);

impl F8E4M3 {
    /// The value; every one is exact in single precision.
    pub fn to_f32(self) -> f32 {
        if self.0 & 0x7f == 0x7f {
            return f32::NAN;
        }
        finite(self.0, 3, 7)
    }
}

impl F8E5M2 {
    /// The value; every one is exact in single precision.
    pub fn to_f32(self) -> f32 {
        // It is the upper half of a half-precision float.
        half::f16::from_bits(u16::from(self.0) << 8).to_f32()
    }
}

/// The value of a finite number with `mantissa_bits` of mantissa and an exponent offset by `bias`.
fn finite(bits: u8, mantissa_bits: u32, bias: i32) -> f32 {
    let magnitude = bits & 0x7f;
    let exponent = i32::from(magnitude >> mantissa_bits);
    let mantissa = f32::from(magnitude & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits) as f32;
    let value = if exponent == 0 {
        mantissa * 2_f32.powi(1 - bias)
    } else {
        (1.0 + mantissa) * 2_f32.powi(exponent - bias)
    };
    if bits & 0x80 == 0 { value } else { -value }
}

impl fmt::Debug for F8E4M3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_f32().fmt(f)
    }
}

impl fmt::Debug for F8E5M2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_f32().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e4m3_has_the_values_of_the_specification() {
        for (bits, value) in [
            (0x00, 0.0),
            (0x01, 2_f32.powi(-9)),
            (0x07, 7.0 * 2_f32.powi(-9)),
            (0x08, 2_f32.powi(-6)),
            (0x38, 1.0),
            (0xb9, -1.125),
            (0x7e, 448.0),
        ] {
            assert_eq!(F8E4M3(bits).to_f32(), value, "{bits:#x}");
        }
        assert!(F8E4M3(0x80).to_f32().is_sign_negative());
    }

    #[test]
    fn e5m2_has_the_values_of_the_specification() {
        for (bits, value) in [
            (0x01, 2_f32.powi(-16)),
            (0x3c, 1.0),
            (0xbd, -1.25),
            (0x7b, 57344.0),
            (0x7c, f32::INFINITY),
        ] {
            assert_eq!(F8E5M2(bits).to_f32(), value, "{bits:#x}");
        }
        assert!(F8E5M2(0x7d).to_f32().is_nan());
    }
}
