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
    let count = values.len() / width.max(1);
    let (a, rest) = planes.split_at_mut(count.min(planes.len()));
    match width {
        1 => a.copy_from_slice(values),
        2 => {
            let (values, _) = values.as_chunks::<2>();
            for ((value, a), b) in values.iter().zip(a).zip(rest) {
                let value = u16::from_le_bytes(*value);
                *a = value as u8;
                *b = (value >> 8) as u8;
            }
        }
        4 => {
            let (values, _) = values.as_chunks::<4>();
            let (b, rest) = rest.split_at_mut(count);
            let (c, d) = rest.split_at_mut(count);
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
            for (place, plane) in planes.chunks_exact_mut(count.max(1)).enumerate() {
                let shift = 8 * (place % 8);
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
