//! The arithmetic of numpy, by the type of the elements.

use core_view::DType;

use super::difference::{Encode, judge};
use super::half_float::{narrow, widen};
use super::payload::Payload;
use super::{CoralFidelity, refused};
use crate::{Delta, WeightError, WeightTensor};

/// An element that Coral makes deltas of.
pub(super) trait Lane: Copy + PartialEq {
    /// Width in bytes.
    const WIDTH: usize;
    /// From its bytes, of which there are [`WIDTH`](Self::WIDTH).
    fn read(bytes: &[u8]) -> Self;
    fn write(self, bytes: &mut [u8]);
    /// As numpy adds a float32 to it and converts the sum back.
    fn plus(self, difference: f32) -> Self;
    /// As numpy subtracts a reference from it and converts the difference to float32.
    fn minus(self, reference: Self) -> f32;
    fn to_f32(self) -> f32;
    fn from_f32(value: f32) -> Self;
    /// The next smaller element, −0 below +0.
    fn below(self) -> Option<Self>;
    /// The next larger element.
    fn above(self) -> Option<Self>;
}

/// What the decoder of a kind makes of a reference and its value.
type Decode<L> = fn(L, f32) -> L;

/// The tensor that a payload makes of a reference, and how sure it is to be the one that was encoded.
pub(super) fn combine(
    delta: &Delta,
    reference: &WeightTensor,
    payload: &Payload,
    lossy: bool,
) -> Result<(Vec<u8>, CoralFidelity), WeightError> {
    if reference.dtype() != delta.original_dtype() {
        return Err(refused(
            delta.kind(),
            "its reference has another type than it",
        ));
    }
    let run = match delta.original_dtype() {
        DType::I8 => apply::<i8>,
        DType::U8 => apply::<u8>,
        DType::I16 => apply::<i16>,
        DType::U16 => apply::<u16>,
        DType::I32 => apply::<i32>,
        DType::U32 => apply::<u32>,
        DType::I64 => apply::<i64>,
        DType::U64 => apply::<u64>,
        DType::F16 => apply::<Half>,
        DType::F32 => apply::<f32>,
        DType::F64 => apply::<f64>,
        other => {
            let reason = format!("Coral makes no deltas of {}", other.numpy_name());
            return Err(refused(delta.kind(), reason));
        }
    };
    let mut target = Vec::new();
    let len = reference.bytes().len();
    target
        .try_reserve_exact(len)
        .map_err(|_| WeightError::OutOfMemory {
            what: format!("a {} delta", delta.kind().name()),
            requested_bytes: len as u64,
        })?;
    target.resize(len, 0);
    let fidelity = run(reference.bytes(), payload, lossy, &mut target);
    Ok((target, fidelity))
}

fn apply<L: Lane>(
    reference: &[u8],
    payload: &Payload,
    lossy: bool,
    target: &mut [u8],
) -> CoralFidelity {
    let mut fidelity = CoralFidelity {
        elements: (reference.len() / L::WIDTH) as u64,
        lossy,
        ..CoralFidelity::default()
    };
    let (values, decode, encode): (_, Decode<L>, Encode<L>) = match payload {
        Payload::Difference(values) => (values, L::plus, L::minus),
        // The sum is one of float32, whatever the elements.
        Payload::SingleDifference(values) => (
            values,
            |reference, difference| L::from_f32(reference.to_f32() + difference),
            L::minus,
        ),
        Payload::ExclusiveOr(values) => (
            values,
            |reference, bits| {
                let value = reference.to_f32().to_bits() ^ bits.to_bits();
                L::from_f32(f32::from_bits(value))
            },
            |element, reference| {
                f32::from_bits(element.to_f32().to_bits() ^ reference.to_f32().to_bits())
            },
        ),
    };
    let exclusive_or = matches!(payload, Payload::ExclusiveOr(_));
    let elements = reference
        .chunks_exact(L::WIDTH)
        .zip(target.chunks_exact_mut(L::WIDTH));
    for ((reference, target), &value) in elements.zip(values) {
        let reference = L::read(reference);
        let decoded = decode(reference, value);
        decoded.write(target);
        if lossy {
            continue;
        }
        if exclusive_or {
            judge_bits(encode, reference, decoded, value, &mut fidelity);
        } else {
            judge(encode, reference, decoded, value, &mut fidelity);
        }
    }
    fidelity
}

/// As [`judge`], for what is not a number but the bits of one: they are equal or they are not.
fn judge_bits<L: Lane>(
    encode: Encode<L>,
    reference: L,
    decoded: L,
    bits: f32,
    fidelity: &mut CoralFidelity,
) {
    let has = |element: L| encode(element, reference).to_bits() == bits.to_bits();
    if !has(decoded) {
        fidelity.changed += 1;
    } else if [decoded.below(), decoded.above()]
        .into_iter()
        .flatten()
        .any(has)
    {
        fidelity.unknown += 1;
    }
}

/// An element of half precision.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Half(u16);

impl Lane for Half {
    const WIDTH: usize = 2;

    fn read(bytes: &[u8]) -> Self {
        Self(u16::from_le_bytes(array(bytes)))
    }

    fn write(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.0.to_le_bytes());
    }

    fn plus(self, difference: f32) -> Self {
        Self(narrow(widen(self.0) + difference))
    }

    fn minus(self, reference: Self) -> f32 {
        widen(narrow(widen(self.0) - widen(reference.0)))
    }

    fn to_f32(self) -> f32 {
        widen(self.0)
    }

    fn from_f32(value: f32) -> Self {
        Self(narrow(value))
    }

    fn below(self) -> Option<Self> {
        match self.0 {
            0 => Some(Self(0x8000)),
            bits if bits & 0x8000 != 0 => bits.checked_add(1).map(Self),
            bits => Some(Self(bits - 1)),
        }
    }

    fn above(self) -> Option<Self> {
        match self.0 {
            0x8000 => Some(Self(0)),
            bits if bits & 0x8000 != 0 => Some(Self(bits - 1)),
            bits => Some(bits + 1).filter(|bits| *bits < 0x8000).map(Self),
        }
    }
}

/// Floats: the bits of the positive ones are in order, those of the negative ones in the opposite.
macro_rules! float_lane {
    ($type:ty, $bits:ty, $sign:expr) => {
        impl Lane for $type {
            const WIDTH: usize = size_of::<$type>();

            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(array(bytes))
            }

            fn write(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            fn plus(self, difference: f32) -> Self {
                self + <$type>::from(difference)
            }

            fn minus(self, reference: Self) -> f32 {
                (self - reference) as f32
            }

            fn to_f32(self) -> f32 {
                self as f32
            }

            fn from_f32(value: f32) -> Self {
                <$type>::from(value)
            }

            fn below(self) -> Option<Self> {
                const SIGN: $bits = $sign;
                match self.to_bits() {
                    0 => Some(Self::from_bits(SIGN)),
                    bits if bits & SIGN != 0 => bits.checked_add(1).map(Self::from_bits),
                    bits => Some(Self::from_bits(bits - 1)),
                }
            }

            fn above(self) -> Option<Self> {
                const SIGN: $bits = $sign;
                match self.to_bits() {
                    SIGN => Some(Self::from_bits(0)),
                    bits if bits & SIGN != 0 => Some(Self::from_bits(bits - 1)),
                    bits => Some(bits + 1)
                        .filter(|bits| bits & SIGN == 0)
                        .map(Self::from_bits),
                }
            }
        }
    };
}

float_lane!(f32, u32, 1 << 31);
float_lane!(f64, u64, 1 << 63);

/// Integers: numpy adds a float32 in float32 if they fit it, else in float64.
macro_rules! integer_lane {
    ($type:ty, $sum:ty, $cut:ident) => {
        impl Lane for $type {
            const WIDTH: usize = size_of::<$type>();

            fn read(bytes: &[u8]) -> Self {
                Self::from_le_bytes(array(bytes))
            }

            fn write(self, bytes: &mut [u8]) {
                bytes.copy_from_slice(&self.to_le_bytes());
            }

            fn plus(self, difference: f32) -> Self {
                $cut((self as $sum + <$sum>::from(difference)).into()) as Self
            }

            fn minus(self, reference: Self) -> f32 {
                self.wrapping_sub(reference) as f32
            }

            fn to_f32(self) -> f32 {
                self as f32
            }

            fn from_f32(value: f32) -> Self {
                $cut(value.into()) as Self
            }

            fn below(self) -> Option<Self> {
                self.checked_sub(1)
            }

            fn above(self) -> Option<Self> {
                self.checked_add(1)
            }
        }
    };
}

integer_lane!(i8, f32, cut_to_i32);
integer_lane!(u8, f32, cut_to_i32);
integer_lane!(i16, f32, cut_to_i32);
integer_lane!(u16, f32, cut_to_i32);
integer_lane!(i32, f64, cut_to_i32);
integer_lane!(u32, f64, cut_to_u32);
integer_lane!(i64, f64, cut_to_i64);
integer_lane!(u64, f64, cut_to_u64);

/// Cuts the fraction off; what does not fit becomes the smallest integer, as on x86-64.
fn cut_to_i32(value: f64) -> i32 {
    match value {
        value if value > -2_147_483_649.0 && value < 2_147_483_648.0 => value as i32,
        _ => i32::MIN,
    }
}

/// As [`cut_to_i32`].
fn cut_to_i64(value: f64) -> i64 {
    match value {
        value if value >= i64::MIN as f64 && value < 9_223_372_036_854_775_808.0 => value as i64,
        _ => i64::MIN,
    }
}

/// As compilers for x86-64 do it with an instruction for signed integers.
fn cut_to_u32(value: f64) -> u32 {
    const HALF: f64 = 2_147_483_648.0;
    if value >= HALF {
        cut_to_i32(value - HALF) as u32 ^ 1 << 31
    } else {
        cut_to_i32(value) as u32
    }
}

/// As [`cut_to_u32`].
fn cut_to_u64(value: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    if value >= HALF {
        cut_to_i64(value - HALF) as u64 ^ 1 << 63
    } else {
        cut_to_i64(value) as u64
    }
}

/// The bytes as an array; zeros if there are not as many, which callers rule out.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}
