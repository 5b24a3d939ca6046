//! The forms that elements take before they are split into planes, and back.
//!
//! Each form is a bijection of the integers of an element's width, so that every bit pattern comes back.

use core_view::DType;

/// The integer that is coded for an element, as an encoding names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The element.
    AsIs,
    /// Rotated left by one: a float's exponent on top, its sign at the bottom.
    Rotated,
    /// Zig-zag of a signed integer.
    ZigZag,
    /// Zig-zag of the difference from the base's element.
    Difference,
    /// Zig-zag of the difference between the places of two floats in the order of floats.
    OrderedDifference,
}

impl Form {
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::AsIs),
            1 => Some(Self::Rotated),
            2 => Some(Self::ZigZag),
            3 => Some(Self::Difference),
            4 => Some(Self::OrderedDifference),
            _ => None,
        }
    }

    pub(crate) fn id(self) -> u8 {
        match self {
            Self::AsIs => 0,
            Self::Rotated => 1,
            Self::ZigZag => 2,
            Self::Difference => 3,
            Self::OrderedDifference => 4,
        }
    }

    /// Whether it needs the elements of a base.
    pub(crate) fn needs_base(self) -> bool {
        matches!(self, Self::Difference | Self::OrderedDifference)
    }
}

/// Width in bytes of the elements that a type is coded as, and their form.
pub(crate) fn of(dtype: DType) -> (usize, Form) {
    match dtype {
        DType::F16 | DType::BF16 => (2, Form::Rotated),
        DType::F32 | DType::C64 => (4, Form::Rotated),
        DType::F64 => (8, Form::Rotated),
        DType::F8E4M3 | DType::F8E5M2 | DType::F8E4M3Fnuz | DType::F8E5M2Fnuz => (1, Form::Rotated),
        DType::I8 => (1, Form::ZigZag),
        DType::I16 => (2, Form::ZigZag),
        DType::I32 => (4, Form::ZigZag),
        DType::I64 => (8, Form::ZigZag),
        DType::U16 => (2, Form::AsIs),
        DType::U32 => (4, Form::AsIs),
        DType::U64 => (8, Form::AsIs),
        _ => (1, Form::AsIs),
    }
}

/// As [`of`], against a base.
pub(crate) fn of_difference(dtype: DType) -> (usize, Form) {
    match of(dtype) {
        (width, Form::Rotated) => (width, Form::OrderedDifference),
        (width, _) => (width, Form::Difference),
    }
}

/// Writes what is coded for the elements of `source` to `values`. All are whole numbers of elements of
/// `width` bytes and equally long; `base` may be empty if the form needs none.
pub(crate) fn apply(form: Form, width: usize, source: &[u8], base: &[u8], values: &mut [u8]) {
    match width {
        1 => byte::apply(form, source, base, values),
        2 => word::apply(form, source, base, values),
        4 => double_word::apply(form, source, base, values),
        _ => quad_word::apply(form, source, base, values),
    }
}

/// Turns what is coded for elements back into them, in place.
pub(crate) fn undo(form: Form, width: usize, base: &[u8], values: &mut [u8]) {
    match width {
        1 => byte::undo(form, base, values),
        2 => word::undo(form, base, values),
        4 => double_word::undo(form, base, values),
        _ => quad_word::undo(form, base, values),
    }
}

/// The loops over elements of one width.
macro_rules! kernels {
    ($name:ident, $unsigned:ty, $signed:ty, $width:literal) => {
        mod $name {
            use super::Form;

            const SIGN: $unsigned = 1 << (8 * $width - 1);

            fn zigzag(x: $unsigned) -> $unsigned {
                (x << 1) ^ ((x as $signed >> (8 * $width - 1)) as $unsigned)
            }

            fn unzigzag(v: $unsigned) -> $unsigned {
                (v >> 1) ^ (v & 1).wrapping_neg()
            }

            /// The place of a float among all, in the order of floats.
            fn place(x: $unsigned) -> $unsigned {
                x ^ (((x as $signed >> (8 * $width - 1)) as $unsigned) | SIGN)
            }

            fn at_place(o: $unsigned) -> $unsigned {
                o ^ (((!o as $signed >> (8 * $width - 1)) as $unsigned) | SIGN)
            }

            fn each(source: &[u8], values: &mut [u8], f: impl Fn($unsigned) -> $unsigned) {
                let (source, _) = source.as_chunks::<$width>();
                let (values, _) = values.as_chunks_mut::<$width>();
                for (x, v) in source.iter().zip(values) {
                    *v = f(<$unsigned>::from_le_bytes(*x)).to_le_bytes();
                }
            }

            fn each_with(
                source: &[u8],
                base: &[u8],
                values: &mut [u8],
                f: impl Fn($unsigned, $unsigned) -> $unsigned,
            ) {
                let (source, _) = source.as_chunks::<$width>();
                let (base, _) = base.as_chunks::<$width>();
                let (values, _) = values.as_chunks_mut::<$width>();
                for ((x, b), v) in source.iter().zip(base).zip(values) {
                    let (x, b) = (
                        <$unsigned>::from_le_bytes(*x),
                        <$unsigned>::from_le_bytes(*b),
                    );
                    *v = f(x, b).to_le_bytes();
                }
            }

            fn each_in_place(values: &mut [u8], f: impl Fn($unsigned) -> $unsigned) {
                for v in values.as_chunks_mut::<$width>().0 {
                    *v = f(<$unsigned>::from_le_bytes(*v)).to_le_bytes();
                }
            }

            fn each_in_place_with(
                base: &[u8],
                values: &mut [u8],
                f: impl Fn($unsigned, $unsigned) -> $unsigned,
            ) {
                let (base, _) = base.as_chunks::<$width>();
                for (v, b) in values.as_chunks_mut::<$width>().0.iter_mut().zip(base) {
                    let b = <$unsigned>::from_le_bytes(*b);
                    *v = f(<$unsigned>::from_le_bytes(*v), b).to_le_bytes();
                }
            }

            pub(super) fn apply(form: Form, source: &[u8], base: &[u8], values: &mut [u8]) {
                match form {
                    Form::AsIs => values.copy_from_slice(source),
                    Form::Rotated => each(source, values, |x| x.rotate_left(1)),
                    Form::ZigZag => each(source, values, zigzag),
                    Form::Difference => {
                        each_with(source, base, values, |x, b| zigzag(x.wrapping_sub(b)));
                    }
                    Form::OrderedDifference => each_with(source, base, values, |x, b| {
                        zigzag(place(x).wrapping_sub(place(b)))
                    }),
                }
            }

            pub(super) fn undo(form: Form, base: &[u8], values: &mut [u8]) {
                match form {
                    Form::AsIs => {}
                    Form::Rotated => each_in_place(values, |v| v.rotate_right(1)),
                    Form::ZigZag => each_in_place(values, unzigzag),
                    Form::Difference => {
                        each_in_place_with(base, values, |v, b| unzigzag(v).wrapping_add(b));
                    }
                    Form::OrderedDifference => each_in_place_with(base, values, |v, b| {
                        at_place(unzigzag(v).wrapping_add(place(b)))
                    }),
                }
            }

            #[cfg(test)]
            mod tests {
                use super::*;

                #[test]
                fn neighbouring_floats_are_neighbouring_places() {
                    assert_eq!(place(0), SIGN);
                    assert_eq!(place(SIGN), SIGN - 1, "negative zero comes before zero");
                    assert_eq!(place(SIGN | 1), SIGN - 2);
                    assert_eq!(place(<$unsigned>::MAX), 0);
                    for x in (0..=255).map(|x: $unsigned| x.wrapping_mul(0x4D)) {
                        assert_eq!(at_place(place(x)), x);
                        assert_eq!(unzigzag(zigzag(x)), x);
                    }
                }
            }
        }
    };
}

kernels!(byte, u8, i8, 1);
kernels!(word, u16, i16, 2);
kernels!(double_word, u32, i32, 4);
kernels!(quad_word, u64, i64, 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_half_floats_comes_back() {
        // Every element against bases of every kind: zeros, subnormals, normals, infinities, NaNs.
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut values = vec![0; all.len()];
        for b in [
            0, 1, 0x8000, 0x8001, 0x3C00, 0x7BFF, 0x7C00, 0xFC00, 0x7E01, 0xFFFF_u16,
        ] {
            let base: Vec<u8> = b.to_le_bytes().repeat(1 << 16);
            for id in 0..5 {
                let form = Form::from_id(id).unwrap();
                apply(form, 2, &all, &base, &mut values);
                let mut seen = vec![false; 1 << 16];
                for v in values.as_chunks::<2>().0 {
                    seen[usize::from(u16::from_le_bytes(*v))] = true;
                }
                assert!(seen.iter().all(|seen| *seen), "{form:?} is no bijection");
                undo(form, 2, &base, &mut values);
                assert_eq!(values, all, "{form:?} against {b:#x}");
            }
        }
        assert_eq!(Form::from_id(5), None);
    }

    #[test]
    fn a_difference_from_zero_is_a_rotation() {
        let source: Vec<u8> = [1.5_f32, -1.5, 0.0, -0.0, f32::MIN_POSITIVE, -3e38]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let base = vec![0; source.len()];
        let (mut rotated, mut difference) = (source.clone(), source.clone());
        apply(Form::Rotated, 4, &source, &[], &mut rotated);
        apply(Form::OrderedDifference, 4, &source, &base, &mut difference);
        assert_eq!(rotated, difference);
    }
}
