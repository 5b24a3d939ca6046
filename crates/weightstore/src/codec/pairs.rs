//! Two symbols of few likely values in one byte.
//!
//! A symbol is what a byte has above some low bits. The fifteen symbols up to the top have ranks, the
//! others escape: rank 15, and the symbol itself in a list. A Huffman code over two ranks comes
//! closer to the entropy than one over single symbols, and has half as many codes to write and read.

use super::bits::{pack, packed_len, parts, unpack};
use super::chunk::DecodeError;
use super::entropy::Entropy;
use super::prefix_code;
use super::reader::Reader;
use super::sink::{Full, Sink};
use super::statistics::SHIFT_MAX;
use super::stream;

/// The rank of symbols that have none.
const ESCAPE: u8 = 15;
/// Bytes that are searched for escapes at a time.
const STRIDE: usize = 64;

/// Memory for the ranks of a plane, used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    ranks: Vec<u8>,
    packed: Vec<u8>,
    escapes: Vec<u8>,
}

/// Writes the payload of a stream of kind pairs.
pub(crate) fn encode(
    plane: &[u8],
    top: u8,
    shift: u32,
    scratch: &mut Scratch,
    sink: &mut Sink<'_>,
) -> Result<(), Full> {
    scratch.ranks.resize(plane.len(), 0);
    for (rank, byte) in scratch.ranks.iter_mut().zip(plane) {
        *rank = top.wrapping_sub(byte >> shift).min(ESCAPE);
    }
    scratch.escapes.clear();
    for (ranks, bytes) in scratch.ranks.chunks(STRIDE).zip(plane.chunks(STRIDE)) {
        if has(ranks, ESCAPE) {
            let escaped = ranks.iter().zip(bytes).filter(|(rank, _)| **rank == ESCAPE);
            scratch
                .escapes
                .extend(escaped.map(|(_, byte)| byte >> shift));
        }
    }
    scratch.packed.resize(packed_len(plane.len(), 4), 0);
    pack(&scratch.ranks, 0, 4, &mut scratch.packed);
    sink.put(&[top, shift as u8, 0, 0])?;
    sink.put_u32(scratch.escapes.len())?;
    stream::encode_codes(&scratch.packed, sink)?;
    sink.put(&scratch.escapes)?;
    for (shift, bits) in parts(shift) {
        let len = packed_len(plane.len(), *bits);
        let room = sink.rest().get_mut(..len).ok_or(Full)?;
        pack(plane, *shift, *bits, room);
        sink.advance(len);
    }
    Ok(())
}

/// Reads the payload of a stream of kind pairs that holds as many bytes as `plane` has.
pub(crate) fn decode(
    payload: &[u8],
    entropy: &mut Entropy,
    codes: &mut prefix_code::Scratch,
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
    let packed = stream::decode_simple(&mut reader, entropy, codes, &mut scratch.packed)?;
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
