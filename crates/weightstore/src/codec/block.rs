//! One block: elements that decode without their neighbours.

use super::chunk::DecodeError;
use super::form::{self, Form};
use super::planes::{self, WIDTH_MAX};
use super::reader::Reader;
use super::sink::{Full, Sink};
use super::sparse;
use super::statistics::{Histogram, Plan, entropy_of_share};
use super::stream::Coder;

const RAW: u8 = 0;
const FILL: u8 = 1;
const PLANES: u8 = 2;
const SPARSE: u8 = 3;

/// Kind and reserved bytes.
const HEADER_LEN: usize = 4;
/// Elements of a sample and how many of them lie together.
const SAMPLE_LEN: usize = 8192;
const SAMPLE_RUN: usize = 128;
/// Bytes that take their form and are split at once.
const PART_LEN: usize = 8 << 10;
/// The least share of the most frequent element at which blocks are looked at as sparse ones.
const SPARSE_SHARE: f32 = 1.0 / 16.0;
/// Below this many bits a byte, matches are tried on bitmaps: few bits are set.
const BITMAP_PRICE: f32 = 3.0;
/// How much cheaper than planes sparse has to be: it takes longer.
const SPARSE_GAIN: f32 = 0.97;

/// What elements are coded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// In bytes.
    pub(crate) width: usize,
    pub(crate) form: Form,
}

/// What coding blocks needs, used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    coder: Coder,
    values: Vec<u8>,
    planes: Vec<u8>,
    bitmap: Vec<u8>,
    sample: Vec<u8>,
    sample_planes: Vec<u8>,
}

/// In which planes matches are worth a try, as the first block of a chunk found out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Matches {
    probed: bool,
    planes: [bool; WIDTH_MAX],
    bitmap: bool,
}

/// Writes a block. `base` is as long as `source`, or empty if the form needs none.
pub(crate) fn encode(
    layout: Layout,
    source: &[u8],
    base: &[u8],
    scratch: &mut Scratch,
    matches: &mut Matches,
    sink: &mut Sink<'_>,
) -> Result<(), Full> {
    let start = sink.len();
    let encoded = encode_elements(layout, source, base, scratch, matches, sink);
    if encoded.is_err() || sink.len() - start > HEADER_LEN + source.len() {
        sink.truncate(start);
        sink.put(&[RAW, 0, 0, 0])?;
        sink.put(source)?;
    }
    Ok(())
}

fn encode_elements(
    layout: Layout,
    source: &[u8],
    base: &[u8],
    scratch: &mut Scratch,
    matches: &mut Matches,
    sink: &mut Sink<'_>,
) -> Result<(), Full> {
    let width = layout.width;
    let count = source.len() / width;
    let (elements, tail) = source.split_at_checked(count * width).ok_or(Full)?;
    let base = base.get(..elements.len()).unwrap_or_default();
    encode_values((layout, elements, base), scratch, matches, sink)?;
    sink.put(tail)
}

fn encode_values(
    (layout, elements, base): (Layout, &[u8], &[u8]),
    scratch: &mut Scratch,
    matches: &mut Matches,
    sink: &mut Sink<'_>,
) -> Result<(), Full> {
    let width = layout.width;
    let count = elements.len() / width;
    if count == 0 {
        return Err(Full);
    }
    let sampled = Sampled::take(layout, elements, base, scratch);
    if sampled.sparse.is_some() || sampled.is_constant {
        scratch.values.resize(elements.len(), 0);
        form::apply(layout.form, width, elements, base, &mut scratch.values);
    }
    if sampled.is_constant {
        let (first, after) = scratch.values.split_at_checked(width).ok_or(Full)?;
        if scratch.values.get(..after.len()) == Some(after) {
            sink.put(&[FILL, 0, 0, 0])?;
            return sink.put(first);
        }
    }
    let count_coded = match sampled.sparse {
        None => {
            sink.put(&[PLANES, 0, 0, 0])?;
            split_dense(layout, elements, base, scratch);
            count
        }
        Some(fill) => {
            sink.put(&[SPARSE, 0, 0, 0])?;
            sink.put(&fill.to_le_bytes()[..width])?;
            scratch.bitmap.resize(count.div_ceil(8), 0);
            let others = sparse::split(
                width,
                &scratch.values,
                fill,
                &mut scratch.bitmap,
                &mut scratch.planes,
            );
            sink.put_u32(others)?;
            let plan = Histogram::of(&scratch.bitmap).plan(scratch.bitmap.len());
            if !matches.probed {
                matches.bitmap = scratch.coder.has_matches(&scratch.bitmap, plan);
            }
            let try_matches = matches.bitmap || plan.price < BITMAP_PRICE;
            scratch
                .coder
                .encode(&scratch.bitmap, plan, try_matches, sink)?;
            others
        }
    };
    for index in 0..width {
        let range = index * count_coded..(index + 1) * count_coded;
        let plane = scratch.planes.get(range).ok_or(Full)?;
        let plan = sampled.plans[index];
        if !matches.probed {
            matches.planes[index] = scratch.coder.has_matches(plane, plan);
        }
        scratch
            .coder
            .encode(plane, plan, matches.planes[index], sink)?;
    }
    matches.probed = true;
    Ok(())
}

/// Splits what is coded for the elements into planes, a part at a time that stays in the first cache.
fn split_dense(layout: Layout, elements: &[u8], base: &[u8], scratch: &mut Scratch) {
    let Layout { width, form } = layout;
    scratch.planes.resize(elements.len(), 0);
    let mut values = [0; PART_LEN];
    for start in (0..elements.len()).step_by(PART_LEN) {
        let part = elements.get(start..).unwrap_or_default();
        let part = part.get(..PART_LEN).unwrap_or(part);
        let base = base.get(start..start + part.len()).unwrap_or_default();
        let values = values.get_mut(..part.len()).unwrap_or_default();
        form::apply(form, width, part, base, values);
        planes::split_part(width, values, &mut scratch.planes, start / width);
    }
}

/// What a sample of a block's elements says.
struct Sampled {
    /// Whether all sampled elements are the same.
    is_constant: bool,
    /// The fill, if the block is to be a sparse one.
    sparse: Option<u64>,
    /// For each plane of what is then left.
    plans: [Plan; WIDTH_MAX],
}

impl Sampled {
    fn take(layout: Layout, elements: &[u8], base: &[u8], scratch: &mut Scratch) -> Self {
        let Layout { width, form } = layout;
        let count = elements.len() / width;
        let (run_len, step) = match count <= SAMPLE_LEN {
            true => (elements.len().max(1), 1),
            false => {
                let runs = elements.len() / (SAMPLE_RUN * width);
                (SAMPLE_RUN * width, runs.div_ceil(SAMPLE_LEN / SAMPLE_RUN))
            }
        };
        scratch.sample.clear();
        for (place, run) in elements
            .chunks_exact(run_len)
            .enumerate()
            .step_by(step.max(1))
        {
            let (start, len) = (place * run_len, scratch.sample.len());
            scratch.sample.resize(len + run.len(), 0);
            let base = base.get(start..start + run.len()).unwrap_or_default();
            let values = scratch.sample.get_mut(len..).unwrap_or_default();
            form::apply(form, width, run, base, values);
        }
        let (dense, dense_price) = Self::plans(width, count, scratch);
        let (fill, share) = sparse::most_frequent(width, &scratch.sample);
        let is_constant = share >= 1.0;
        let planes_alone = Self {
            is_constant,
            sparse: None,
            plans: dense,
        };
        if share < SPARSE_SHARE {
            return planes_alone;
        }
        sparse::keep_others(width, fill, &mut scratch.sample);
        let others = ((1.0 - share) * count as f32) as usize;
        let (plans, price) = Self::plans(width, others, scratch);
        // A byte of the bitmap has eight such bits, and costs one at least unless there are runs.
        let bitmap_price = (1.03 * entropy_of_share(share) + 0.01).min(1.0);
        match price * (1.0 - share) + bitmap_price < SPARSE_GAIN * dense_price {
            true => Self {
                is_constant,
                sparse: Some(fill),
                plans,
            },
            false => planes_alone,
        }
    }

    /// Plans for the planes of the sampled elements and the price of all, in bits an element.
    fn plans(width: usize, count: usize, scratch: &mut Scratch) -> ([Plan; WIDTH_MAX], f32) {
        let sample = &scratch.sample;
        scratch.sample_planes.resize(sample.len(), 0);
        planes::split(width, sample, &mut scratch.sample_planes);
        let mut plans = [Histogram::of(&[]).plan(0); WIDTH_MAX];
        let planes = scratch
            .sample_planes
            .chunks_exact((sample.len() / width).max(1));
        for (plan, plane) in plans.iter_mut().zip(planes) {
            *plan = Histogram::of(plane).plan(count);
        }
        let price = plans[..width].iter().map(|plan| plan.price).sum();
        (plans, price)
    }
}

/// Reads a block of as many bytes as `target` has. `base` is as long, or empty if the form needs none.
pub(crate) fn decode(
    layout: Layout,
    encoded: &[u8],
    base: &[u8],
    scratch: &mut Scratch,
    target: &mut [u8],
) -> Result<(), DecodeError> {
    let mut reader = Reader::new(encoded);
    let kind = reader.u8()?;
    reader.zeros::<3>()?;
    if kind == RAW {
        target.copy_from_slice(reader.take(target.len())?);
        return reader.end();
    }
    let width = layout.width;
    let count = target.len() / width;
    let (elements, tail) = target.split_at_mut(count * width);
    match kind {
        FILL => {
            let value = reader.take(width)?;
            repeat(value, elements);
        }
        PLANES => {
            scratch.planes.resize(count * width, 0);
            decode_planes(width, count, &mut reader, scratch, elements)?;
        }
        SPARSE => decode_sparse(width, &mut reader, scratch, elements)?,
        _ => return Err(DecodeError::damaged(format!("a block of kind {kind}"))),
    }
    form::undo(layout.form, width, base, elements);
    tail.copy_from_slice(reader.take(tail.len())?);
    reader.end()
}

/// Writes a value over and over; each copy doubles what is there.
fn repeat(value: &[u8], elements: &mut [u8]) {
    let mut done = value.len().min(elements.len());
    if let (Some(first), Some(value)) = (elements.get_mut(..done), value.get(..done)) {
        first.copy_from_slice(value);
    }
    while done > 0 && done < elements.len() {
        let next = done.min(elements.len() - done);
        elements.copy_within(..next, done);
        done += next;
    }
}

fn decode_planes(
    width: usize,
    count: usize,
    reader: &mut Reader<'_>,
    scratch: &mut Scratch,
    elements: &mut [u8],
) -> Result<(), DecodeError> {
    if count == 0 {
        for _ in 0..width {
            scratch.coder.decode(reader, &mut [])?;
        }
        return Ok(());
    }
    let mut planes: [&[u8]; WIDTH_MAX] = [&[]; WIDTH_MAX];
    for (plane, room) in planes
        .iter_mut()
        .zip(scratch.planes.chunks_exact_mut(count))
    {
        *plane = scratch.coder.decode(reader, room)?;
    }
    planes::join(&planes[..width], elements);
    Ok(())
}

fn decode_sparse(
    width: usize,
    reader: &mut Reader<'_>,
    scratch: &mut Scratch,
    elements: &mut [u8],
) -> Result<(), DecodeError> {
    let count = elements.len() / width;
    let fill = reader.take(width)?;
    let others = reader.u32()?;
    if others > count {
        return Err(DecodeError::damaged(format!(
            "{others} of {count} elements differ from the fill"
        )));
    }
    let mut bitmap = std::mem::take(&mut scratch.bitmap);
    bitmap.resize(count.div_ceil(8), 0);
    let mut values = std::mem::take(&mut scratch.values);
    values.resize(others * width, 0);
    scratch.planes.resize(others * width, 0);
    let decoded = (|| {
        let bitmap = scratch.coder.decode(reader, &mut bitmap)?;
        sparse::check(bitmap, count, others)?;
        decode_planes(width, others, reader, scratch, &mut values)?;
        sparse::join(width, fill, bitmap, &values, elements);
        Ok(())
    })();
    scratch.bitmap = bitmap;
    scratch.values = values;
    decoded
}
