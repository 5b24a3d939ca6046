//! A chunk as blocks of planes.

use std::ops::Range;

use super::block::{self, Layout, Matches};
use super::chunk::DecodeError;
use super::form::Form;
use super::reader::Reader;
use super::sink::{Full, Sink};

/// Length of a block before encoding, in bytes, as it is written.
const BLOCK_LEN: usize = 256 << 10;
/// The newest form of what follows a chunk's header: since 1 there are streams of kind rANS.
const REVISION: u8 = 1;
/// What decoders take.
const BLOCK_LEN_MIN: usize = 4096;
const BLOCK_LEN_MAX: usize = 1 << 20;

/// What coding chunks needs, used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    blocks: block::Scratch,
    /// A base that ends before its target does.
    padded: Vec<u8>,
    /// A block of which a part is wanted.
    whole: Vec<u8>,
}

/// Bytes that the encoding of a chunk takes at most.
pub(crate) fn room(chunk_len: usize) -> usize {
    chunk_len + 8 + 8 * chunk_len.div_ceil(BLOCK_LEN)
}

/// Writes the encoding of a chunk. `base` holds the same bytes of the base, as far as it goes.
pub(crate) fn encode(
    layout: Layout,
    chunk: &[u8],
    base: &[u8],
    scratch: &mut Scratch,
    sink: &mut Sink<'_>,
) -> Result<(), Full> {
    let start = sink.len();
    sink.put(&[layout.width as u8, layout.form.id(), REVISION, 0])?;
    sink.put_u32(BLOCK_LEN)?;
    let lengths_at = sink.len();
    let blocks = chunk.chunks(BLOCK_LEN);
    for _ in 0..blocks.len() {
        sink.put_u32(0)?;
    }
    debug_assert_eq!(sink.len() - start, 8 + 4 * blocks.len());
    let mut matches = Matches::default();
    for (index, block) in blocks.enumerate() {
        let from = sink.len();
        let range = index * BLOCK_LEN..index * BLOCK_LEN + block.len();
        let base = base_of(layout.form, base, range, &mut scratch.padded);
        block::encode(layout, block, base, &mut scratch.blocks, &mut matches, sink)?;
        sink.patch_u32(lengths_at + 4 * index, sink.len() - from)?;
    }
    Ok(())
}

/// The bytes of the base that a block is coded against; what it lacks is zero.
fn base_of<'a>(
    form: Form,
    base: &'a [u8],
    range: Range<usize>,
    padded: &'a mut Vec<u8>,
) -> &'a [u8] {
    if !form.needs_base() {
        return &[];
    }
    match base.get(range.clone()) {
        Some(base) => base,
        None => {
            padded.clear();
            padded.extend_from_slice(base.get(range.start..).unwrap_or_default());
            padded.resize(range.len(), 0);
            padded
        }
    }
}

/// Reads the bytes of a chunk from `start` on into `target`; only the blocks that hold them are decoded.
///
/// `base` holds the same bytes of the base as the chunk, as far as it goes; `None` refuses forms that need one.
pub(crate) fn decode(
    encoded: &[u8],
    chunk_len: usize,
    base: Option<&[u8]>,
    start: usize,
    scratch: &mut Scratch,
    target: &mut [u8],
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(encoded);
    let layout = layout(&mut reader)?;
    let base = match (base, layout.form.needs_base()) {
        (None, true) => return Err(DecodeError::damaged("it needs a base where there is none")),
        (base, _) => base.unwrap_or_default(),
    };
    let block_len = reader.u32()?;
    if !(BLOCK_LEN_MIN..=BLOCK_LEN_MAX).contains(&block_len) || !block_len.is_multiple_of(8) {
        return Err(DecodeError::damaged(format!("blocks of {block_len} bytes")));
    }
    let count = chunk_len.div_ceil(block_len);
    let mut lengths = Reader::new(reader.take(4 * count)?);
    let end = start + target.len();
    let mut rest = target;
    for index in 0..count {
        let encoded = reader.take(lengths.u32()?)?;
        let range = index * block_len..chunk_len.min((index + 1) * block_len);
        let (from, to) = (range.start.max(start), range.end.min(end));
        if from >= to {
            continue;
        }
        let (piece, after) = rest.split_at_mut(to - from);
        rest = after;
        let base = base_of(layout.form, base, range.clone(), &mut scratch.padded);
        if piece.len() == range.len() {
            block::decode(layout, encoded, base, &mut scratch.blocks, piece)?;
            continue;
        }
        scratch.whole.resize(range.len(), 0);
        block::decode(
            layout,
            encoded,
            base,
            &mut scratch.blocks,
            &mut scratch.whole,
        )?;
        let within = from - range.start..to - range.start;
        piece.copy_from_slice(scratch.whole.get(within).unwrap_or_default());
    }
    reader.end()
}

fn layout(reader: &mut Reader<'_>) -> Result<Layout, DecodeError> {
    let [width, form, revision] = reader.array()?;
    reader.zeros::<1>()?;
    if revision > REVISION {
        return Err(DecodeError::Newer(format!(
            "its blocks have revision {revision}, this program reads {REVISION}"
        )));
    }
    let form = Form::from_id(form)
        .ok_or_else(|| DecodeError::damaged(format!("elements of form {form}")))?;
    match usize::from(width) {
        width @ (1 | 2 | 4 | 8) => Ok(Layout { width, form }),
        width => Err(DecodeError::damaged(format!("elements of {width} bytes"))),
    }
}
