//! Small summaries of tensors, by which one that is nearly the same is found without being named.
//!
//! A sketch keeps some elements at positions that depend on nothing but the number of elements, rounded
//! up to a power of two: so sketches of a tensor, of its fine-tunes and of one that grew by some rows
//! hold the same elements. Two sketches tell how far two tensors are apart without reading either, and
//! a base that would save nothing is never tried. `docs/formats/weights.md` has the layout.

mod index;
#[cfg(test)]
mod tests;

use core_view::DType;

pub use index::SketchIndex;

use crate::WeightError;
use crate::codec::chunk::DecodeError;
use crate::codec::reader::Reader;

const MAGIC: [u8; 4] = *b"SWSK";
const VERSION: u16 = 1;
/// Elements that are kept, if the tensor reaches as far as their positions.
const SLOTS: usize = 768;

/// A summary of a tensor's content, of fixed size.
///
/// ```
/// use core_view::DType;
/// use weightstore::Sketch;
///
/// let weights = |change: f32| -> Vec<u8> {
///     (0..10_000).flat_map(|i| ((i as f32).sin() + change * (i as f32).cos()).to_le_bytes()).collect()
/// };
/// let sketch = |bytes: &[u8]| Sketch::of(DType::F32, &[100, 100], bytes).ok_or("too small");
/// let (base, tuned) = (sketch(&weights(0.0))?, sketch(&weights(0.01))?);
/// let likeness = base.likeness(&tuned).ok_or("another shape")?;
/// assert!((0.005..0.02).contains(&likeness.relative_change));
/// assert!(likeness.is_promising());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    dtype: DType,
    elements: u64,
    /// Length of the last dimension: rows of another length are other elements at the same positions.
    row: u64,
    /// The elements as bfloat16; zero beyond the tensor's end.
    slots: Box<[u16; SLOTS]>,
}

/// Where a sketch is kept: among those that it may be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SketchPlace {
    pub(crate) dtype: [u8; 8],
    pub(crate) row: u64,
    /// Binary logarithm of the number of elements, rounded up to a power of two.
    pub(crate) size_log2: u8,
    /// The signs of the first slots: bit i is that of slot i.
    pub(crate) signs: u64,
}

impl SketchPlace {
    /// In how many signs two tensors differ, of those that are of the same elements; `None` if so many that
    /// they have nothing to do with each other.
    #[cfg(feature = "native")]
    pub(crate) fn distance(&self, other: &Self) -> Option<u32> {
        let common = match self.size_log2.abs_diff(other.size_log2) {
            0 => u64::MAX,
            1 => (0..64).fold(0, |bits, slot| {
                let here = position(slot as usize, 1 << self.size_log2.min(63));
                let there = position(slot as usize, 1 << other.size_log2.min(63));
                bits | u64::from(here == there) << slot
            }),
            _ => return None,
        };
        let differing = ((self.signs ^ other.signs) & common).count_ones();
        (differing * 64 <= index::SIGNS_MAX * common.count_ones()).then_some(differing)
    }
}

/// How far two tensors are apart, as their sketches tell.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Likeness {
    /// Root of the mean square of the differences, by that of the first tensor's elements; about 1.4 for
    /// tensors that have nothing to do with each other.
    pub relative_change: f64,
    /// The share of elements that are within an eighth of each other.
    pub kept_share: f64,
}

impl Likeness {
    /// Whether a difference is likely to be smaller than the tensor alone: little changed everywhere, or
    /// much in few places.
    pub fn is_promising(&self) -> bool {
        self.relative_change < 0.25 || self.kept_share > 0.4
    }

    /// By which the nearer of two is known: few changes, however large, are better than small ones
    /// everywhere.
    pub(crate) fn distance(&self) -> f64 {
        self.relative_change.min(1.0 - self.kept_share + 0.01)
    }
}

impl Sketch {
    /// Length of a stored sketch in bytes.
    pub const LEN_BYTES: usize = 32 + 2 * SLOTS;
    /// The fewest elements: what is smaller is stored whole.
    pub const ELEMENTS_MIN: u64 = 2048;

    /// The sketch of a tensor; `None` for one that is too small, or whose bytes are not those of its
    /// shape.
    pub fn of(dtype: DType, shape: &[u64], bytes: &[u8]) -> Option<Self> {
        let read = |at: usize, target: &mut [u8]| {
            target.copy_from_slice(bytes.get(at..at + target.len())?);
            Some(())
        };
        Self::read(dtype, shape, bytes.len() as u64, read)
    }

    /// As [`Sketch::of`] for a tensor that is not in memory: `read` fills a few bytes from an offset, or
    /// gives up. Offsets rise.
    pub fn read(
        dtype: DType,
        shape: &[u64],
        len_bytes: u64,
        read: impl FnMut(usize, &mut [u8]) -> Option<()>,
    ) -> Option<Self> {
        Self::read_first(SLOTS, (dtype, shape, len_bytes), read)
    }

    /// As [`Sketch::read`], the first slots alone; the others stay zero.
    pub(crate) fn read_first(
        slots: usize,
        (dtype, shape, len_bytes): (DType, &[u64], u64),
        mut read: impl FnMut(usize, &mut [u8]) -> Option<()>,
    ) -> Option<Self> {
        let mut builder = SketchBuilder::new(dtype, shape, len_bytes)?;
        let (width, places) = (builder.width, std::mem::take(&mut builder.places));
        for (position, slot) in places.into_iter().filter(|(_, slot)| *slot < slots) {
            let mut element = [0; 8];
            let element = element.get_mut(..width)?;
            read(usize::try_from(position).ok()?.checked_mul(width)?, element)?;
            builder.take(slot, element);
        }
        Some(builder.sketch)
    }

    /// How far the other tensor is from this one; `None` if their elements do not lie at the same
    /// positions: another type, rows of another length, or a very different size.
    pub fn likeness(&self, other: &Self) -> Option<Likeness> {
        self.likeness_within(other, SLOTS)
    }

    /// As [`Sketch::likeness`], by the first slots alone.
    pub(crate) fn likeness_within(&self, other: &Self, slots: usize) -> Option<Likeness> {
        let (here, there) = (self.place(), other.place());
        let comparable = here.size_log2.abs_diff(there.size_log2) <= 1;
        if here.dtype != there.dtype || here.row != there.row || !comparable {
            return None;
        }
        let common = self.elements.min(other.elements);
        let (mut changes, mut squares, mut kept, mut count) = (0.0, 0.0, 0_u32, 0_u32);
        let pairs = self.slots.iter().zip(other.slots.iter());
        for (slot, (a, b)) in pairs.enumerate().take(slots) {
            let at = position(slot, self.elements);
            if at >= common || at != position(slot, other.elements) {
                continue;
            }
            let (a, b) = (widened(*a), widened(*b));
            let change = a - b;
            changes += change * change;
            squares += a * a;
            kept += u32::from(change.abs() <= a.abs().max(b.abs()) / 8.0);
            count += 1;
        }
        if count == 0 {
            return None;
        }
        let relative_change = match (changes > 0.0, squares > 0.0) {
            (false, _) => 0.0,
            (true, false) => f64::INFINITY,
            (true, true) => (changes / squares).sqrt(),
        };
        Some(Likeness {
            relative_change,
            kept_share: f64::from(kept) / f64::from(count),
        })
    }

    /// What sketches have in common whose elements lie at the same positions.
    fn bucket(&self) -> (DType, u64, u64) {
        (self.dtype, self.elements.next_power_of_two(), self.row)
    }

    /// Where it is kept.
    pub(crate) fn place(&self) -> SketchPlace {
        SketchPlace {
            dtype: dtype_code(self.dtype),
            row: self.row,
            size_log2: self.elements.next_power_of_two().trailing_zeros() as u8,
            signs: self.signs(),
        }
    }

    /// The signs of some elements. Those of tensors that are alike differ in few bits, others in half.
    fn signs(&self) -> u64 {
        let signs = self.slots.iter().take(64).zip(0..);
        signs.fold(0, |signs, (slot, bit)| signs | u64::from(slot >> 15) << bit)
    }

    /// The sketch as it is stored.
    pub fn to_bytes(&self) -> [u8; Self::LEN_BYTES] {
        let mut bytes = [0; Self::LEN_BYTES];
        let fields = MAGIC
            .into_iter()
            .chain(VERSION.to_le_bytes())
            .chain([0; 2])
            .chain(dtype_code(self.dtype))
            .chain(self.elements.to_le_bytes())
            .chain(self.row.to_le_bytes())
            .chain(self.slots.iter().flat_map(|slot| slot.to_le_bytes()));
        for (byte, field) in bytes.iter_mut().zip(fields) {
            *byte = field;
        }
        bytes
    }

    /// Reads a stored sketch.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`], [`WeightError::Newer`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WeightError> {
        Self::parse(bytes).map_err(|error| error.about("sketch", "in memory"))
    }

    fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return Err(DecodeError::damaged("it does not start with its magic"));
        }
        let version = u16::from_le_bytes(reader.array()?);
        let features = u16::from_le_bytes(reader.array()?);
        if version != VERSION || features != 0 {
            return Err(DecodeError::Newer(format!(
                "it has version {version} and features {features:#x}, this program reads {VERSION} and none"
            )));
        }
        let code: [u8; 8] = reader.array()?;
        let dtype = DType::all()
            .find(|dtype| dtype_code(*dtype) == code)
            .ok_or_else(|| DecodeError::damaged("it is of an unknown type"))?;
        let (elements, row) = (reader.u64()?, reader.u64()?);
        if !(Self::ELEMENTS_MIN..=1 << 62).contains(&elements) {
            return Err(DecodeError::damaged(format!(
                "it is of {elements} elements"
            )));
        }
        let mut slots = Box::new([0; SLOTS]);
        for slot in slots.iter_mut() {
            *slot = u16::from_le_bytes(reader.array()?);
        }
        reader.end()?;
        Ok(Self {
            dtype,
            elements,
            row,
            slots,
        })
    }
}

/// A sketch of a tensor whose bytes arrive in order.
#[derive(Debug)]
pub(crate) struct SketchBuilder {
    sketch: Sketch,
    /// Of an element, in bytes.
    width: usize,
    /// Positions of elements with their slots, in order; those that are taken are gone.
    places: Vec<(u64, usize)>,
    #[cfg(feature = "native")]
    next: usize,
    #[cfg(feature = "native")]
    at_bytes: u64,
}

impl SketchBuilder {
    /// Starts; `None` for a tensor that is too small.
    pub(crate) fn new(dtype: DType, shape: &[u64], len_bytes: u64) -> Option<Self> {
        // Types narrower than a byte are looked at as bytes; so are pairs of floats as floats.
        let width = match dtype {
            DType::C64 => 4,
            _ => dtype.size_bytes().unwrap_or(1),
        };
        let elements = len_bytes / width as u64;
        if elements < Sketch::ELEMENTS_MIN {
            return None;
        }
        let mut places: Vec<(u64, usize)> = (0..SLOTS)
            .map(|slot| (position(slot, elements), slot))
            .filter(|(position, _)| *position < elements)
            .collect();
        places.sort_unstable();
        let sketch = Sketch {
            dtype,
            elements,
            row: shape.last().copied().unwrap_or(1),
            slots: Box::new([0; SLOTS]),
        };
        Some(Self {
            sketch,
            width,
            places,
            #[cfg(feature = "native")]
            next: 0,
            #[cfg(feature = "native")]
            at_bytes: 0,
        })
    }

    fn take(&mut self, slot: usize, element: &[u8]) {
        if let Some(place) = self.sketch.slots.get_mut(slot) {
            *place = rounded(value(self.sketch.dtype, element));
        }
    }

    /// Takes the next bytes, whole elements of them unless they are the last.
    #[cfg(feature = "native")]
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        let end = self.at_bytes + bytes.len() as u64;
        while let Some((position, slot)) = self.places.get(self.next).copied() {
            let start = position * self.width as u64;
            if start >= end {
                break;
            }
            let from = start.saturating_sub(self.at_bytes) as usize;
            let element = bytes.get(from..from + self.width).unwrap_or_default();
            self.take(slot, element);
            self.next += 1;
        }
        self.at_bytes = end;
    }

    /// The sketch of what was taken.
    #[cfg(feature = "native")]
    pub(crate) fn so_far(&self) -> &Sketch {
        &self.sketch
    }

    /// The sketch, once all bytes were taken.
    #[cfg(feature = "native")]
    pub(crate) fn finish(self) -> Sketch {
        self.sketch
    }
}

/// The first eight bytes of a type's name, which no two share, padded with zeros.
fn dtype_code(dtype: DType) -> [u8; 8] {
    let mut code = [0; 8];
    // `F8_E4M3FNUZ` and `F8_E5M2FNUZ` are told from their namesakes by the end of the name.
    let name = dtype.safetensors_name();
    let short = name.strip_suffix("FNUZ").map(|start| (start, b'Z'));
    let (start, end) = short.map_or((name, 0), |(start, mark)| (start, mark));
    for (byte, letter) in code.iter_mut().zip(start.bytes()) {
        *byte = letter;
    }
    code[7] = if end == 0 { code[7] } else { end };
    code
}

/// Where a slot's element lies; beyond the end for some slots of some lengths.
fn position(slot: usize, elements: u64) -> u64 {
    let range = elements.next_power_of_two();
    let mut mixed = (slot as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) & (range - 1)
}

/// An element as a number; what is none counts as zero.
pub(crate) fn value(dtype: DType, element: &[u8]) -> f64 {
    let mut bytes = [0; 8];
    for (byte, source) in bytes.iter_mut().zip(element) {
        *byte = *source;
    }
    let bits = u64::from_le_bytes(bytes);
    let signed = |width: u32| ((bits << (64 - width)) as i64 >> (64 - width)) as f64;
    let number = match dtype {
        DType::F64 => f64::from_bits(bits),
        DType::F32 | DType::C64 => f64::from(f32::from_bits(bits as u32)),
        DType::BF16 => f64::from(f32::from_bits((bits as u32) << 16)),
        DType::F16 => small_float(bits, 5, 10),
        DType::F8E4M3 | DType::F8E4M3Fnuz => small_float(bits, 4, 3),
        DType::F8E5M2 | DType::F8E5M2Fnuz => small_float(bits, 5, 2),
        DType::I8 => signed(8),
        DType::I16 => signed(16),
        DType::I32 => signed(32),
        DType::I64 => signed(64),
        _ => bits as f64,
    };
    if number.is_finite() { number } else { 0.0 }
}

/// A float of few bits, up to a factor that is the same for all of its type; infinities and NaNs count as the
/// large numbers that their bits look like.
fn small_float(bits: u64, exponent_bits: u32, mantissa_bits: u32) -> f64 {
    let mantissa = (bits & ((1 << mantissa_bits) - 1)) as f64;
    let exponent = (bits >> mantissa_bits & ((1 << exponent_bits) - 1)) as i32;
    let one = f64::from(1_u32 << mantissa_bits);
    let magnitude = match exponent {
        0 => mantissa / one * 2.0,
        _ => (1.0 + mantissa / one) * 2_f64.powi(exponent),
    };
    let negative = bits >> (exponent_bits + mantissa_bits) & 1 == 1;
    if negative { -magnitude } else { magnitude }
}

/// To the nearest bfloat16; what is too large is the largest.
fn rounded(number: f64) -> u16 {
    let limited = number.clamp(f64::from(-f32::MAX), f64::from(f32::MAX)) as f32;
    let bits = limited.to_bits();
    let up = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    // Rounding up the largest number makes an infinity, which is none.
    let kept = if up & 0x7F80_0000 == 0x7F80_0000 {
        bits
    } else {
        up
    };
    (kept >> 16) as u16
}

fn widened(slot: u16) -> f64 {
    let number = f64::from(f32::from_bits(u32::from(slot) << 16));
    if number.is_finite() { number } else { 0.0 }
}
