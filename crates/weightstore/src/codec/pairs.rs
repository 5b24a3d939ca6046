//! Two symbols of few likely values in one byte.
//!
//! A symbol is what a byte has above some low bits. The fifteen symbols up to the top have ranks, the
//! others escape: rank 15, and the symbol itself in a list.
//!
//! They are read only: chunks of revision 0 have them. The encoder is there for the tests.

#[cfg(test)]
mod encoder;

#[cfg(test)]
pub(crate) use encoder::encode;

use super::bits::{packed_len, parts, unpack};
use super::chunk::DecodeError;
use super::reader::Reader;
use super::stream::{self, Readers};

/// The most low bits that are left as they are.
const SHIFT_MAX: u32 = 4;

/// The rank of symbols that have none.
const ESCAPE: u8 = 15;
/// Bytes that are searched for escapes at a time.
const STRIDE: usize = 64;

/// Memory for the pairs of a plane, used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    packed: Vec<u8>,
}

/// Reads the payload of a stream of kind pairs that holds as many bytes as `plane` has.
pub(crate) fn decode(
    payload: &[u8],
    readers: &mut Readers,
    scratch: &mut Scratch,
    plane: &mut [u8],
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(payload);
    let [top, shift] = reader.array()?;
    reader.zeros::<2>()?;
    let shift = u32::from(shift);
    if shift > SHIFT_MAX {
        return Err(DecodeError::damaged(format!(
            "pairs with a shift of {shift}"
        )));
    }
    let escape_count = reader.u32()?;
    scratch.packed.resize(packed_len(plane.len(), 4), 0);
    let packed = stream::decode_simple(&mut reader, readers, &mut scratch.packed)?;
    let mut escapes = reader.take(escape_count)?.iter();
    plane.fill(0);
    unpack(packed, 0, 4, plane);
    for byte in plane.iter_mut() {
        *byte = top.wrapping_sub(*byte) << shift;
    }
    let mark = top.wrapping_sub(ESCAPE) << shift;
    for bytes in plane.chunks_mut(STRIDE) {
        if !has(bytes, mark) {
            continue;
        }
        for byte in bytes.iter_mut().filter(|byte| **byte == mark) {
            let symbol = escapes
                .next()
                .ok_or_else(|| DecodeError::damaged("pairs have fewer escapes than marks"))?;
            *byte = symbol << shift;
        }
    }
    if escapes.next().is_some() {
        return Err(DecodeError::damaged("pairs have more escapes than marks"));
    }
    for (shift, bits) in parts(shift) {
        let packed = reader.take(packed_len(plane.len(), *bits))?;
        unpack(packed, *shift, *bits, plane);
    }
    reader.end()
}

/// Whether one of a few bytes is `wanted`; without a way out of the loop, which is vector code so.
fn has(bytes: &[u8], wanted: u8) -> bool {
    let found = bytes
        .iter()
        .fold(0, |found, byte| found | u8::from(*byte == wanted));
    found != 0
}
