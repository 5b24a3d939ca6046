//! Writes what earlier versions wrote.

use super::ESCAPE;
use crate::codec::bits::{pack, packed_len, parts};
use crate::codec::sink::{Full, Sink};
use crate::codec::stream;

/// Writes the payload of a stream of kind pairs.
pub(crate) fn encode(plane: &[u8], top: u8, shift: u32, sink: &mut Sink<'_>) -> Result<(), Full> {
    let rank = |byte: &u8| top.wrapping_sub(byte >> shift).min(ESCAPE);
    let ranks: Vec<u8> = plane.iter().map(rank).collect();
    let escaped = plane.iter().filter(|byte| rank(byte) == ESCAPE);
    let escapes: Vec<u8> = escaped.map(|byte| byte >> shift).collect();
    let mut packed = vec![0; packed_len(plane.len(), 4)];
    pack(&ranks, 0, 4, &mut packed);
    sink.put(&[top, shift as u8, 0, 0])?;
    sink.put_u32(escapes.len())?;
    stream::earlier::encode_codes(&packed, sink)?;
    sink.put(&escapes)?;
    for (shift, bits) in parts(shift) {
        let len = packed_len(plane.len(), *bits);
        let room = sink.rest().get_mut(..len).ok_or(Full)?;
        pack(plane, *shift, *bits, room);
        sink.advance(len);
    }
    Ok(())
}
