//! A plane of bytes as it is stored.

use super::chunk::DecodeError;
use super::entropy::{Effort, Entropy};
use super::pairs;
use super::prefix_code;
use super::rans;
use super::reader::Reader;
use super::sink::{Full, Sink};
use super::statistics::{Code, Plan};

const RAW: u8 = 0;
const CONSTANT: u8 = 1;
const ZSTD: u8 = 2;
const PAIRS: u8 = 3;
const CODES: u8 = 4;
const RANS: u8 = 5;

/// Kind, reserved bytes, length.
const HEADER_LEN: usize = 8;

/// Bytes in which matches are looked for before a whole plane is tried.
const PROBE_LEN: usize = 8192;
/// How much cheaper than codes matches have to be in the probe.
const PROBE_GAIN: f32 = 0.9;

/// What coding streams needs, used again.
#[derive(Debug, Default)]
pub(crate) struct Coder {
    readers: Readers,
    pairs: pairs::Scratch,
    probe: Vec<u8>,
}

/// What streams need that are not made of another one.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    entropy: Entropy,
    rans: rans::Scratch,
    codes: prefix_code::Scratch,
}

impl Coder {
    /// Whether part of a plane gets smaller by matches than by the plan.
    pub(crate) fn has_matches(&mut self, plane: &[u8], plan: Plan) -> bool {
        let start = plane.len().saturating_sub(PROBE_LEN) / 2;
        let probe = plane.get(start..).unwrap_or_default();
        let probe = probe.get(..PROBE_LEN).unwrap_or(probe);
        if !repeats(probe) {
            return false;
        }
        let wanted = plan.price * PROBE_GAIN / 8.0 * probe.len() as f32;
        self.probe.resize(wanted as usize, 0);
        self.readers
            .entropy
            .encode(Effort::Matches, probe, &mut self.probe)
            .is_some()
    }

    /// Writes a stream by the plan, or in a smaller way that turns up.
    pub(crate) fn encode(
        &mut self,
        plane: &[u8],
        plan: Plan,
        try_matches: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), Full> {
        if let Some(first) = constant(plane) {
            return put(CONSTANT, sink, |sink| sink.put(&[first]));
        }
        let start = sink.len();
        if !plane.is_empty() && try_matches {
            encode_by(Effort::Matches, plane, &mut self.readers.entropy, sink)?;
        }
        let middle = sink.len();
        if middle - start > 0 && (middle - start) as f32 * 8.0 <= plan.price * plane.len() as f32 {
            return Ok(());
        }
        let planned = match plan.code {
            Code::Raw => put(RAW, sink, |sink| sink.put(plane)),
            Code::Huffman => encode_by(Effort::Huffman, plane, &mut self.readers.entropy, sink),
            Code::Rans => put(RANS, sink, |sink| {
                rans::encode(plane, &mut self.readers.rans, sink)
            }),
        };
        if let Err(full) = planned {
            sink.truncate(middle);
            return if middle > start { Ok(()) } else { Err(full) };
        }
        if sink.len() - middle > HEADER_LEN + plane.len() {
            sink.truncate(middle);
            put(RAW, sink, |sink| sink.put(plane))?;
        }
        if middle > start {
            match sink.len() - middle < middle - start {
                true => sink.remove(start, middle),
                false => sink.truncate(middle),
            }
        }
        Ok(())
    }

    /// Reads a stream that holds as many bytes as `plane` has; returns where they are: in `plane`, or in
    /// the encoding itself.
    pub(crate) fn decode<'a, 'b: 'a>(
        &mut self,
        reader: &mut Reader<'b>,
        plane: &'a mut [u8],
    ) -> Result<&'a [u8], DecodeError> {
        let mut ahead = *reader;
        let (kind, payload) = open(&mut ahead)?;
        if kind != PAIRS || plane.is_empty() {
            return decode_simple(reader, &mut self.readers, plane);
        }
        *reader = ahead;
        pairs::decode(payload, &mut self.readers, &mut self.pairs, plane)?;
        Ok(plane)
    }
}

/// Whether eight bytes at places that are multiples of four are often those of an earlier such place. Much cheaper than a
/// search for matches, which finds nothing in most planes.
fn repeats(probe: &[u8]) -> bool {
    const TABLE_BITS: u32 = 11;
    /// Of that many places one has to be a repetition.
    const RARITY: usize = 64;
    let word_at = |at: usize| probe.get(at..).and_then(<[u8]>::first_chunk::<8>);
    let mut earlier = [0_u16; 1 << TABLE_BITS];
    let (mut places, mut repetitions) = (0, 0);
    for at in (0..probe.len()).step_by(4) {
        let Some(word) = word_at(at) else { break };
        let mixed = u64::from_le_bytes(*word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let last = &mut earlier[(mixed >> (64 - TABLE_BITS)) as usize];
        let is_repetition = at > 0 && word_at(usize::from(*last)) == Some(word);
        repetitions += usize::from(is_repetition);
        places += 1;
        *last = at as u16;
    }
    // Few places say nothing.
    places < RARITY || repetitions * RARITY >= places
}

/// Writes a stream as a frame, or as it is if that is no longer.
pub(crate) fn encode_by(
    effort: Effort,
    plane: &[u8],
    entropy: &mut Entropy,
    sink: &mut Sink<'_>,
) -> Result<(), Full> {
    if let Some(first) = constant(plane) {
        return put(CONSTANT, sink, |sink| sink.put(&[first]));
    }
    let rest = sink.rest().get_mut(HEADER_LEN..).unwrap_or_default();
    let limit = rest.len().min(plane.len().saturating_sub(1));
    let room = rest.get_mut(..limit).unwrap_or_default();
    match entropy.encode(effort, plane, room) {
        Some(len) => put(ZSTD, sink, |sink| {
            sink.advance(len);
            Ok(())
        }),
        None => put(RAW, sink, |sink| sink.put(plane)),
    }
}

/// Reads a stream of a kind that is not made of another one.
pub(crate) fn decode_simple<'a, 'b: 'a>(
    reader: &mut Reader<'b>,
    readers: &mut Readers,
    plane: &'a mut [u8],
) -> Result<&'a [u8], DecodeError> {
    let (kind, payload) = open(reader)?;
    match (kind, payload) {
        (RAW, payload) if payload.len() == plane.len() => Ok(payload),
        (CONSTANT, [byte]) if !plane.is_empty() => {
            plane.fill(*byte);
            Ok(plane)
        }
        (ZSTD, payload) if !plane.is_empty() => {
            readers.entropy.decode(payload, plane)?;
            Ok(plane)
        }
        (CODES, payload) if !plane.is_empty() => {
            prefix_code::decode(payload, &mut readers.codes, plane)?;
            Ok(plane)
        }
        (RANS, payload) if !plane.is_empty() => {
            rans::decode(payload, &mut readers.rans, plane)?;
            Ok(plane)
        }
        _ => Err(DecodeError::damaged(format!(
            "a stream of kind {kind} with {} bytes can't hold {}",
            payload.len(),
            plane.len()
        ))),
    }
}

fn open<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), DecodeError> {
    let kind = reader.u8()?;
    reader.zeros::<3>()?;
    let len = reader.u32()?;
    Ok((kind, reader.take(len)?))
}

/// Writes a header and the payload that `write` makes.
fn put(
    kind: u8,
    sink: &mut Sink<'_>,
    write: impl FnOnce(&mut Sink<'_>) -> Result<(), Full>,
) -> Result<(), Full> {
    sink.put(&[kind, 0, 0, 0])?;
    let len_at = sink.len();
    sink.put_u32(0)?;
    let start = sink.len();
    write(sink)?;
    sink.patch_u32(len_at, sink.len() - start)
}

/// The byte that all are, if they are.
fn constant(plane: &[u8]) -> Option<u8> {
    let (first, rest) = plane.split_first()?;
    // Each byte is its neighbour: one comparison of memory with itself.
    (plane.get(..rest.len()) == Some(rest)).then_some(*first)
}

/// Streams as earlier versions wrote them.
#[cfg(test)]
pub(crate) mod earlier {
    use super::{
        CODES, CONSTANT, Full, HEADER_LEN, PAIRS, RAW, Sink, constant, pairs, prefix_code, put,
    };

    /// Writes a stream in a prefix code of its own, or as it is if that is no longer.
    pub(crate) fn encode_codes(plane: &[u8], sink: &mut Sink<'_>) -> Result<(), Full> {
        if let Some(first) = constant(plane) {
            return put(CONSTANT, sink, |sink| sink.put(&[first]));
        }
        let start = sink.len();
        let coded = put(CODES, sink, |sink| prefix_code::encode(plane, sink));
        match coded {
            Ok(()) if sink.len() - start < HEADER_LEN + plane.len() => Ok(()),
            _ => {
                sink.truncate(start);
                put(RAW, sink, |sink| sink.put(plane))
            }
        }
    }

    /// Writes a stream of pairs.
    pub(crate) fn encode_pairs(
        plane: &[u8],
        top: u8,
        shift: u32,
        sink: &mut Sink<'_>,
    ) -> Result<(), Full> {
        put(PAIRS, sink, |sink| pairs::encode(plane, top, shift, sink))
    }
}
