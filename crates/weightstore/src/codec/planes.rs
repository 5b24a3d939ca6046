//! Elements taken apart into planes of bytes, and put together again.
//!
//! Plane p of some elements is byte p of each, the least significant first. The loops are written so
//! that the compiler makes vector code of them on any target.

/// The widest element in bytes.
pub(crate) const WIDTH_MAX: usize = 8;

/// Splits elements of `width` bytes into planes of equal length, one after the other.
///
/// `planes` is as long as `values`, which is a whole number of elements.
pub(crate) fn split(width: usize, values: &[u8], planes: &mut [u8]) {
    split_part(width, values, planes, 0);
}

/// As [`split`], of some elements whose first is element `at` of the planes.
pub(crate) fn split_part(width: usize, values: &[u8], planes: &mut [u8], at: usize) {
    let count = (planes.len() / width.max(1)).max(1);
    let part = at..at + values.len() / width.max(1);
    let mut planes = planes.chunks_exact_mut(count);
    let mut next = || planes.next().and_then(|plane| plane.get_mut(part.clone()));
    match width {
        1 => {
            if let Some(plane) = next() {
                plane.copy_from_slice(values);
            }
        }
        2 => {
            let (values, _) = values.as_chunks::<2>();
            let (Some(a), Some(b)) = (next(), next()) else {
                return;
            };
            for ((value, a), b) in values.iter().zip(a).zip(b) {
                let value = u16::from_le_bytes(*value);
                *a = value as u8;
                *b = (value >> 8) as u8;
            }
        }
        4 => {
            let (values, _) = values.as_chunks::<4>();
            let (Some(a), Some(b), Some(c), Some(d)) = (next(), next(), next(), next()) else {
                return;
            };
            for ((((value, a), b), c), d) in values.iter().zip(a).zip(b).zip(c).zip(d) {
                let value = u32::from_le_bytes(*value);
                *a = value as u8;
                *b = (value >> 8) as u8;
                *c = (value >> 16) as u8;
                *d = (value >> 24) as u8;
            }
        }
        _ => {
            let (values, _) = values.as_chunks::<8>();
            for shift in (0..64).step_by(8) {
                let plane = next().unwrap_or_default();
                for (value, byte) in values.iter().zip(plane) {
                    *byte = (u64::from_le_bytes(*value) >> shift) as u8;
                }
            }
        }
    }
}

/// Puts planes together into `target`, which is a whole number of elements of as many bytes as there are
/// planes.
pub(crate) fn join(planes: &[&[u8]], target: &mut [u8]) {
    match planes {
        [a] => target.copy_from_slice(a),
        [a, b] => {
            let (target, _) = target.as_chunks_mut::<2>();
            for ((value, a), b) in target.iter_mut().zip(*a).zip(*b) {
                *value = (u16::from(*a) | u16::from(*b) << 8).to_le_bytes();
            }
        }
        [a, b, c, d] => {
            let (target, _) = target.as_chunks_mut::<4>();
            for ((((value, a), b), c), d) in target.iter_mut().zip(*a).zip(*b).zip(*c).zip(*d) {
                let low = u32::from(*a) | u32::from(*b) << 8;
                *value = (low | u32::from(*c) << 16 | u32::from(*d) << 24).to_le_bytes();
            }
        }
        [a, b, c, d, e, f, g, h] => {
            let (target, _) = target.as_chunks_mut::<8>();
            let low = a.iter().zip(*b).zip(c.iter().zip(*d));
            let high = e.iter().zip(*f).zip(g.iter().zip(*h));
            for (value, (low, high)) in target.iter_mut().zip(low.zip(high)) {
                let (((a, b), (c, d)), ((e, f), (g, h))) = (low, high);
                *value = [*a, *b, *c, *d, *e, *f, *g, *h];
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_are_the_bytes_of_the_elements() {
        for width in [1, 2, 4, 8] {
            for count in [0, 1, 2, 3, 17, 64, 1000] {
                let values: Vec<u8> = (0..width * count)
                    .map(|i| (i * 7 + i / 251) as u8)
                    .collect();
                let mut planes = vec![0; values.len()];
                split(width, &values, &mut planes);
                for (i, value) in values.iter().enumerate() {
                    assert_eq!(planes[(i % width) * count + i / width], *value);
                }
                let mut in_parts = vec![0; values.len()];
                for (place, part) in values.chunks(16 * width).enumerate() {
                    split_part(width, part, &mut in_parts, 16 * place);
                }
                assert_eq!(in_parts, planes);
                let parts: Vec<&[u8]> = (0..width)
                    .map(|p| &planes[p * count..(p + 1) * count])
                    .collect();
                let mut joined = vec![0; values.len()];
                join(&parts, &mut joined);
                assert_eq!(joined, values);
            }
        }
    }
}
