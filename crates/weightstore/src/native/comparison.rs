//! Two models, tensor by tensor.

use std::collections::{BTreeMap, HashMap};

use core_view::DType;
use core_view::safetensors::TensorInfo;

use super::NativeStore;
use super::core::Core;
use super::export::header_of;
use super::import::{OnProgress, Progress};
use super::session::Session;
use super::tensor::Tensor;
use crate::identity::{CHUNK_LEN_BYTES, chunk_count};
use crate::record::Manifest;
use crate::sketch::value;
use crate::{WeightError, WeightHash, parallel};

/// Chunks of each model that are in memory.
const CHUNKS_AHEAD: usize = 8;

/// What became of a tensor from one model to another.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum TensorChange {
    /// The same bytes, type and shape.
    Same,
    /// Other elements, of the same type and shape; `None` for types whose elements lie across bytes, which are
    /// not taken apart.
    Changed(Option<ElementChange>),
    /// Another shape or type; the elements that both have are compared where type and rows are the same.
    Reshaped(Option<ElementChange>),
    /// Only the second model has it.
    Added,
    /// Only the first model has it.
    Removed,
}

/// How far the elements of a tensor are from those of another; what is no finite number counts as zero.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ElementChange {
    /// Root of the mean square of the differences, by that of the first tensor's elements.
    pub relative_change: f64,
    /// The cosine of the angle between the two as vectors; 1 if they point the same way.
    pub similarity: f64,
    /// The share of elements that are not the same, bit for bit. A complex number is one.
    pub changed_share: f64,
}

/// A tensor of two models.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TensorComparison {
    /// Its name, the same in both.
    pub name: String,
    /// Type in the second model; in the first, if it is gone.
    pub dtype: DType,
    /// Shape in the second model; in the first, if it is gone.
    pub shape: Vec<u64>,
    /// Length in bytes there.
    pub len_bytes: u64,
    /// What became of it.
    pub change: TensorChange,
}

/// The tensors of one layer of two models.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LayerComparison {
    /// The names of its tensors up to the first number in them, or without their last part.
    pub layer: String,
    /// Tensors of either model.
    pub tensors: u64,
    /// Those that are not the same.
    pub changed_tensors: u64,
    /// Over all elements that both models have, as [`ElementChange::similarity`], weighted by their number;
    /// `None` without such elements.
    pub similarity: Option<f64>,
    /// The root of the mean square of its tensors' relative changes, weighted by their elements; `None` without such.
    pub relative_change: Option<f64>,
}

/// Two models, tensor by tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelComparison {
    /// Those of the second model in its order, then those that only the first has.
    pub tensors: Vec<TensorComparison>,
    /// In the order of their first tensors.
    pub layers: Vec<LayerComparison>,
}

impl NativeStore {
    /// Compares two models by the names of their tensors. Tensors that are not the same are read, and verified;
    /// memory stays under 32 MiB.
    ///
    /// # Errors
    /// [`WeightError::ModelNotFound`], [`WeightError::Corrupt`].
    pub fn compare_models(
        &self,
        first: &str,
        second: &str,
        progress: Option<OnProgress<'_>>,
    ) -> Result<ModelComparison, WeightError> {
        let core = self.enter()?;
        core.in_session(|session| {
            let first = ModelTensors::open(&core, session, first)?;
            let second = ModelTensors::open(&core, session, second)?;
            compare(&core, &first, &second, progress)
        })
    }
}

/// The tensors of a model, which stay for a session.
struct ModelTensors {
    model: String,
    tensors: Vec<(TensorInfo, WeightHash)>,
}

impl ModelTensors {
    fn open(core: &Core, session: &Session<'_>, model: &str) -> Result<Self, WeightError> {
        let manifest: Manifest = core.kept_manifest(session, model)?;
        let mut tensors = Vec::new();
        for file in &manifest.files {
            let header = header_of(model, file)?;
            let infos = header.tensors().iter().cloned();
            tensors.extend(infos.zip(file.roots.iter().copied()));
        }
        Ok(Self {
            model: model.to_owned(),
            tensors,
        })
    }
}

fn compare(
    core: &Core,
    first: &ModelTensors,
    second: &ModelTensors,
    progress: Option<OnProgress<'_>>,
) -> Result<ModelComparison, WeightError> {
    let mut left: HashMap<&str, &(TensorInfo, WeightHash)> = first
        .tensors
        .iter()
        .map(|tensor| (tensor.0.name.as_str(), tensor))
        .collect();
    let total_bytes = second
        .tensors
        .iter()
        .map(|(info, _)| info.len_bytes())
        .sum();
    let mut done_bytes = 0;
    let mut tensors = Vec::with_capacity(second.tensors.len());
    for (info, root) in &second.tensors {
        let change = match left.remove(info.name.as_str()) {
            None => TensorChange::Added,
            Some((_, old)) if old == root => TensorChange::Same,
            Some((old_info, old)) => {
                let elements = match alike(old_info, info) && has_elements(info.dtype) {
                    true => Some(elements(
                        core,
                        &core.stored(&first.model, old_info, old)?,
                        &core.stored(&second.model, info, root)?,
                    )?),
                    false => None,
                };
                match elements {
                    elements if is_same_form(old_info, info) => TensorChange::Changed(elements),
                    elements => TensorChange::Reshaped(elements),
                }
            }
        };
        tensors.push(compared(info, change));
        done_bytes += info.len_bytes();
        if let Some(progress) = progress {
            progress(Progress {
                done_bytes,
                total_bytes,
            });
        }
    }
    let gone = first.tensors.iter();
    let gone = gone.filter(|(info, _)| left.contains_key(info.name.as_str()));
    tensors.extend(gone.map(|(info, _)| compared(info, TensorChange::Removed)));
    Ok(ModelComparison {
        layers: layers(&tensors),
        tensors,
    })
}

fn compared(info: &TensorInfo, change: TensorChange) -> TensorComparison {
    TensorComparison {
        name: info.name.clone(),
        dtype: info.dtype,
        shape: info.shape.clone(),
        len_bytes: info.len_bytes(),
        change,
    }
}

/// Whether the elements of one lie where those of the other do.
fn alike(a: &TensorInfo, b: &TensorInfo) -> bool {
    a.dtype == b.dtype && a.shape.len() == b.shape.len() && a.shape.get(1..) == b.shape.get(1..)
}

fn is_same_form(a: &TensorInfo, b: &TensorInfo) -> bool {
    a.dtype == b.dtype && a.shape == b.shape
}

/// Whether the elements of a type are known apart: those of six bits lie across bytes and chunks, in an order that
/// safetensors does not say.
fn has_elements(dtype: DType) -> bool {
    !matches!(dtype, DType::F6E2M3 | DType::F6E3M2)
}

/// An element as a number, up to a factor that is the same for all of its type. What is no finite number is zero.
///
/// Sketches take elements for numbers too, and are stored: what is refined here would make them others.
fn number(dtype: DType, element: &[u8]) -> f64 {
    let mut bits = [0; 2];
    for (byte, source) in bits.iter_mut().zip(element) {
        *byte = *source;
    }
    let bits = u16::from_le_bytes(bits);
    match dtype {
        DType::F8E8M0 if bits == 0xFF => 0.0,
        DType::F8E8M0 => 2_f64.powi(i32::from(bits) - 127),
        // Infinities and NaNs; those without an infinity and without a negative zero have it for NaN.
        DType::F16 if bits & 0x7C00 == 0x7C00 => 0.0,
        DType::F8E5M2 if bits & 0x7C == 0x7C => 0.0,
        DType::F8E4M3 if bits & 0x7F == 0x7F => 0.0,
        _ => value(dtype, element),
    }
}

/// A four-bit float, twice its value: a sign, two bits of exponent and one of mantissa.
fn doubled_f4(bits: u8) -> f64 {
    let magnitude = match bits & 7 {
        small @ 0..=4 => small,
        5 => 6,
        6 => 8,
        _ => 12,
    };
    let magnitude = f64::from(magnitude);
    if bits & 8 == 0 { magnitude } else { -magnitude }
}

/// Sums over the elements of two tensors.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    first: f64,
    second: f64,
    product: f64,
    difference: f64,
    changed: u64,
    count: u64,
}

impl Sums {
    fn of(dtype: DType, first: &[u8], second: &[u8]) -> Self {
        let mut sums = Self::default();
        match dtype {
            // Two in a byte.
            DType::F4 => {
                for (a, b) in first.iter().zip(second) {
                    for shift in [0, 4] {
                        let (a, b) = (a >> shift & 0xF, b >> shift & 0xF);
                        sums.count(a != b);
                        sums.take(doubled_f4(a), doubled_f4(b));
                    }
                }
            }
            // Two floats, which are coordinates of their own.
            DType::C64 => {
                for (a, b) in first.chunks_exact(8).zip(second.chunks_exact(8)) {
                    sums.count(a != b);
                    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(4)) {
                        sums.take(number(dtype, a), number(dtype, b));
                    }
                }
            }
            _ => {
                let width = dtype.size_bytes().unwrap_or(1);
                for (a, b) in first.chunks_exact(width).zip(second.chunks_exact(width)) {
                    sums.count(a != b);
                    let x = number(dtype, a);
                    let y = if a == b { x } else { number(dtype, b) };
                    sums.take(x, y);
                }
            }
        }
        sums
    }

    fn count(&mut self, is_changed: bool) {
        self.count += 1;
        self.changed += u64::from(is_changed);
    }

    fn take(&mut self, x: f64, y: f64) {
        self.first += x * x;
        self.second += y * y;
        self.product += x * y;
        self.difference += (y - x) * (y - x);
    }

    fn add(&mut self, other: Self) {
        self.first += other.first;
        self.second += other.second;
        self.product += other.product;
        self.difference += other.difference;
        self.changed += other.changed;
        self.count += other.count;
    }

    fn change(self) -> ElementChange {
        let lengths = (self.first * self.second).sqrt();
        ElementChange {
            relative_change: match self.difference > 0.0 {
                true => (self.difference / self.first).sqrt(),
                false => 0.0,
            },
            similarity: match (lengths > 0.0, self.difference > 0.0) {
                (true, _) => (self.product / lengths).clamp(-1.0, 1.0),
                (false, true) => 0.0,
                (false, false) => 1.0,
            },
            changed_share: self.changed as f64 / self.count.max(1) as f64,
        }
    }
}

/// Compares what two tensors have in common, chunk by chunk.
fn elements(core: &Core, first: &Tensor, second: &Tensor) -> Result<ElementChange, WeightError> {
    let dtype = first.record.dtype;
    let common = first
        .record
        .body
        .len_bytes
        .min(second.record.body.len_bytes);
    let chunks = 0..chunk_count(common) as usize;
    let mut sums = Sums::default();
    parallel::stream(
        core.fetch_threads(),
        CHUNKS_AHEAD,
        chunks.map(Ok),
        |index| {
            let (a, b) = (
                core.chunk(first.source(), index)?,
                core.chunk(second.source(), index)?,
            );
            let left = common - (index * CHUNK_LEN_BYTES) as u64;
            let len = left.min(CHUNK_LEN_BYTES as u64) as usize;
            let (a, b) = (a.get(..len), b.get(..len));
            Ok(Sums::of(
                dtype,
                a.unwrap_or_default(),
                b.unwrap_or_default(),
            ))
        },
        |part| {
            sums.add(part);
            Ok(())
        },
    )?;
    Ok(sums.change())
}

/// The part of a tensor's name that says its layer.
fn layer_of(name: &str) -> &str {
    let mut end = 0;
    for part in name.split('.') {
        end += part.len();
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            return name.get(..end).unwrap_or(name);
        }
        end += 1;
    }
    name.rsplit_once('.').map_or(name, |(layer, _)| layer)
}

fn layers(tensors: &[TensorComparison]) -> Vec<LayerComparison> {
    #[derive(Default)]
    struct Layer {
        tensors: u64,
        changed: u64,
        elements: f64,
        similarity: f64,
        square: f64,
    }
    let mut order: Vec<&str> = Vec::new();
    let mut found: BTreeMap<&str, Layer> = BTreeMap::new();
    for tensor in tensors {
        let name = layer_of(&tensor.name);
        let layer = found.entry(name).or_insert_with(|| {
            order.push(name);
            Layer::default()
        });
        layer.tensors += 1;
        layer.changed += u64::from(tensor.change != TensorChange::Same);
        let (similarity, change) = match tensor.change {
            TensorChange::Same => (1.0, 0.0),
            TensorChange::Changed(Some(elements)) | TensorChange::Reshaped(Some(elements)) => {
                (elements.similarity, elements.relative_change)
            }
            TensorChange::Changed(None)
            | TensorChange::Reshaped(None)
            | TensorChange::Added
            | TensorChange::Removed => continue,
        };
        let elements = tensor.len_bytes as f64 * 8.0 / tensor.dtype.bits() as f64;
        layer.elements += elements;
        layer.similarity += similarity * elements;
        layer.square += change * change * elements;
    }
    let compared = |name: &str| {
        let layer = found.get(name)?;
        let mean = |sum: f64| (layer.elements > 0.0).then(|| sum / layer.elements);
        Some(LayerComparison {
            layer: name.to_owned(),
            tensors: layer.tensors,
            changed_tensors: layer.changed,
            similarity: mean(layer.similarity),
            relative_change: mean(layer.square).map(f64::sqrt),
        })
    };
    order.into_iter().filter_map(compared).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_named_up_to_their_number() {
        for (name, layer) in [
            ("model.layers.3.mlp.up.weight", "model.layers.3"),
            ("model.layers.31.norm", "model.layers.31"),
            ("embed.weight", "embed"),
            ("bias", "bias"),
            ("a..0", "a..0"),
            ("0.weight", "0"),
            ("x.y2.z", "x.y2"),
        ] {
            assert_eq!(layer_of(name), layer);
        }
    }

    #[test]
    fn sums_tell_how_far_elements_are_apart() {
        let bytes = |numbers: &[f32]| {
            numbers
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let of = |a: &[f32], b: &[f32]| Sums::of(DType::F32, &bytes(a), &bytes(b)).change();
        let change = of(&[3.0, 4.0, 0.0, 0.0], &[3.0, 4.0, 0.5, 0.0]);
        assert!((change.relative_change - 0.1).abs() < 1e-12);
        assert!((change.similarity - 5.0 / 25.25_f64.sqrt()).abs() < 1e-12);
        assert_eq!(change.changed_share, 0.25);
        let turned = of(&[1.0, -2.0], &[-1.0, 2.0]);
        assert_eq!((turned.similarity, turned.relative_change), (-1.0, 2.0));
        let grown = of(&[0.0; 2], &[1.0; 2]);
        assert_eq!(
            (grown.similarity, grown.relative_change),
            (0.0, f64::INFINITY)
        );
        let signs = of(&[0.0, f32::NAN], &[-0.0, f32::INFINITY]);
        assert_eq!(
            (signs.similarity, signs.relative_change, signs.changed_share),
            (1.0, 0.0, 1.0)
        );
    }

    #[test]
    fn narrow_floats_are_numbers() {
        let close = |dtype, a: &[u8], b: &[u8], expected: [f64; 3]| {
            let change = Sums::of(dtype, a, b).change();
            let found = [
                change.relative_change,
                change.similarity,
                change.changed_share,
            ];
            for (found, expected) in found.into_iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{dtype} {change:?}");
            }
        };
        // 4, 2 and no number against 8, 2 and no number.
        let cosine = 36.0 / (20.0 * 68.0_f64).sqrt();
        let third = 1.0 / 3.0;
        close(
            DType::F8E8M0,
            &[129, 128, 255],
            &[130, 128, 255],
            [0.8_f64.sqrt(), cosine, third],
        );
        // A number where none was: zero before.
        close(
            DType::F8E8M0,
            &[127, 255],
            &[127, 127],
            [1.0, 0.5_f64.sqrt(), 0.5],
        );
        // 1, -6, 0.5 and 0 against 1, -6, 0.5 and 3.
        close(
            DType::F4,
            &[0xF2, 0x01],
            &[0xF2, 0x51],
            [
                3.0 / 37.25_f64.sqrt(),
                37.25 / (37.25 * 46.25_f64).sqrt(),
                0.25,
            ],
        );
        // What is no number counts as zero in these too.
        let ones = [
            (DType::F16, vec![0, 0x3C, 0, 0x7C]),
            (DType::F8E5M2, vec![0x3C, 0x7C]),
            (DType::F8E4M3, vec![0x38, 0x7F]),
            (DType::F8E4M3Fnuz, vec![0x40, 0x80]),
            (DType::F8E5M2Fnuz, vec![0x40, 0x80]),
        ];
        for (dtype, first) in ones {
            let width = first.len() / 2;
            let second = [&first[..width], &vec![0; width]].concat();
            close(dtype, &first, &second, [0.0, 1.0, 0.5]);
        }
    }

    #[test]
    fn the_values_of_four_bits_are_those_of_the_format() {
        let values: Vec<f64> = (0..8).map(|bits| doubled_f4(bits) / 2.0).collect();
        assert_eq!(values, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert!((0..8).all(|bits| doubled_f4(bits | 8) == -doubled_f4(bits)));
    }

    #[test]
    fn complex_numbers_are_counted_whole() {
        let bytes = |numbers: [f32; 4]| numbers.map(f32::to_le_bytes).concat();
        let (a, b) = (bytes([3.0, 4.0, 0.0, 0.0]), bytes([3.0, 4.5, 0.0, 0.0]));
        let change = Sums::of(DType::C64, &a, &b).change();
        assert_eq!(change.changed_share, 0.5);
        assert!((change.relative_change - 0.1).abs() < 1e-12);
    }
}
