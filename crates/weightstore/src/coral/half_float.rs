//! Half precision as numpy converts it.

use half::f16;

/// To single precision. Unlike a processor, numpy leaves the bits of a not-a-number as they are.
pub(super) fn widen(bits: u16) -> f32 {
    let (sign, magnitude) = (u32::from(bits & 0x8000) << 16, bits & 0x7FFF);
    if magnitude > 0x7C00 {
        f32::from_bits(sign | 0x7F80_0000 | u32::from(magnitude & 0x3FF) << 13)
    } else {
        f16::from_bits(bits).to_f32_const()
    }
}

/// To half precision, to the nearest, ties to even. Of a not-a-number numpy keeps the upper bits, and the
/// lowest if they are all zero.
pub(super) fn narrow(value: f32) -> u16 {
    if !value.is_nan() {
        return f16::from_f32_const(value).to_bits();
    }
    let bits = value.to_bits();
    let payload = (bits >> 13 & 0x3FF) as u16;
    (bits >> 16 & 0x8000) as u16 | 0x7C00 | payload.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back() {
        for bits in 0..=u16::MAX {
            assert_eq!(narrow(widen(bits)), bits, "{bits:#06x}");
        }
    }
}
