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

    /// The nearest value, ties to even; `None` beyond the largest finite value and for infinities.
    pub fn from_f64(value: f64) -> Option<Self> {
        if value.is_nan() {
            return Some(Self(0x7f));
        }
        nearest(value, 0x7e, |bits| Self(bits).to_f32()).map(Self)
    }
}

impl F8E5M2 {
    /// The value; every one is exact in single precision.
    pub fn to_f32(self) -> f32 {
        // It is the upper half of a half-precision float.
        half::f16::from_bits(u16::from(self.0) << 8).to_f32()
    }

    /// The nearest value, ties to even; `None` for a finite number beyond the largest finite value.
    pub fn from_f64(value: f64) -> Option<Self> {
        if value.is_nan() {
            return Some(Self(0x7e));
        }
        if value.is_infinite() {
            return Some(Self(if value > 0.0 { 0x7c } else { 0xfc }));
        }
        nearest(value, 0x7b, |bits| Self(bits).to_f32()).map(Self)
    }
}

/// The bits of the nearest value, searched among the magnitudes 0 to `last`, which grow with their bits.
fn nearest(value: f64, last: u8, decode: impl Fn(u8) -> f32) -> Option<u8> {
    let magnitude = value.abs();
    let at = |bits: u8| f64::from(decode(bits));
    if magnitude > at(last) {
        return None;
    }
    let (mut below, mut above) = (0, last);
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        if at(middle) <= magnitude {
            below = middle;
        } else {
            above = middle;
        }
    }
    let (down, up) = (magnitude - at(below), at(above) - magnitude);
    let bits = if down < up || (down == up && below % 2 == 0) {
        below
    } else {
        above
    };
    Some(if value.is_sign_negative() {
        bits | 0x80
    } else {
        bits
    })
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
    fn numbers_are_rounded_to_the_nearest_with_ties_to_even() {
        for bits in (0..=0x7e).chain(0x80..=0xfe) {
            let value = f64::from(F8E4M3(bits).to_f32());
            assert_eq!(F8E4M3::from_f64(value), Some(F8E4M3(bits)));
        }
        for bits in (0..=0x7c).chain(0x80..=0xfc) {
            let value = f64::from(F8E5M2(bits).to_f32());
            assert_eq!(F8E5M2::from_f64(value), Some(F8E5M2(bits)));
        }
        assert_eq!(F8E4M3::from_f64(1.0625), Some(F8E4M3(0x38)));
        assert_eq!(F8E4M3::from_f64(1.1875), Some(F8E4M3(0x3a)));
        assert_eq!(F8E4M3::from_f64(1.07), Some(F8E4M3(0x39)));
        assert_eq!(F8E4M3::from_f64(449.0), None);
        assert_eq!(F8E5M2::from_f64(-1e9), None);
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
