//! Values of a few bits, packed.
//!
//! Packing `count` values of `bits` bits takes q = ⌈count · bits / 8⌉ bytes; value i is at bit bits · ⌊i / q⌋ of
//! byte i mod q. Neighbours stay neighbours, so that both loops are vector code.

/// Bytes that `count` values of `bits` bits (1, 2 or 4) take.
pub(crate) fn packed_len(count: usize, bits: u32) -> usize {
    count.div_ceil(8 / bits as usize)
}

/// Packs the `bits` bits from `shift` on of each value. `packed` has [`packed_len`] bytes.
#[cfg(test)]
pub(crate) fn pack(values: &[u8], shift: u32, bits: u32, packed: &mut [u8]) {
    let mask = (1_u8 << bits) - 1;
    packed.fill(0);
    for (part, place) in values.chunks(packed.len().max(1)).zip(0..) {
        let up = bits * place;
        for (packed, value) in packed.iter_mut().zip(part) {
            *packed |= ((value >> shift) & mask) << up;
        }
    }
}

/// Sets the `bits` bits from `shift` on of each value, which are zero before.
pub(crate) fn unpack(packed: &[u8], shift: u32, bits: u32, values: &mut [u8]) {
    let mask = (1_u8 << bits) - 1;
    for (part, place) in values.chunks_mut(packed.len().max(1)).zip(0..) {
        let down = bits * place;
        for (packed, value) in packed.iter().zip(part) {
            *value |= ((packed >> down) & mask) << shift;
        }
    }
}

/// The packings that make up the low `bits` bits of a byte: shift and bits of each.
pub(crate) fn parts(bits: u32) -> &'static [(u32, u32)] {
    match bits {
        1 => &[(0, 1)],
        2 => &[(0, 2)],
        3 => &[(0, 2), (2, 1)],
        4 => &[(0, 4)],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_values_come_back() {
        for bits in 1..=4 {
            for count in [1, 2, 3, 7, 8, 9, 64, 1001] {
                let values: Vec<u8> = (0..count).map(|i| (i * 37 + i / 3) as u8).collect();
                let mut restored: Vec<u8> =
                    values.iter().map(|value| value >> bits << bits).collect();
                for (shift, bits) in parts(bits) {
                    let mut packed = vec![0xFF; packed_len(count, *bits)];
                    pack(&values, *shift, *bits, &mut packed);
                    unpack(&packed, *shift, *bits, &mut restored);
                }
                assert_eq!(restored, values);
            }
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let values = [1, 2, 3, 0, 1];
        let mut packed = [0; 2];
        pack(&values, 0, 2, &mut packed);
        // Values 0, 2, 4 in byte 0, values 1, 3 in byte 1.
        assert_eq!(packed, [1 | 3 << 2 | 1 << 4, 2]);
    }
}
