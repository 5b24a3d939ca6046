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
    /// Other elements, of the same type and shape.
    Changed(ElementChange),
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
    /// The share of elements that are not the same, bit for bit.
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
                let elements = match alike(old_info, info) {
                    true => Some(elements(
                        core,
                        &core.stored(&first.model, old_info, old)?,
                        &core.stored(&second.model, info, root)?,
                    )?),
                    false => None,
                };
                match elements {
                    Some(elements) if old_info.shape == info.shape => {
                        TensorChange::Changed(elements)
                    }
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
    fn of(dtype: DType, width: usize, first: &[u8], second: &[u8]) -> Self {
        let mut sums = Self::default();
        for (a, b) in first.chunks_exact(width).zip(second.chunks_exact(width)) {
            sums.count += 1;
            let x = value(dtype, a);
            sums.first += x * x;
            if a == b {
                sums.second += x * x;
                sums.product += x * x;
                continue;
            }
            let y = value(dtype, b);
            sums.changed += 1;
            sums.second += y * y;
            sums.product += x * y;
            sums.difference += (y - x) * (y - x);
        }
        sums
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
    // Types narrower than a byte are looked at as bytes, pairs of floats as floats.
    let width = match dtype {
        DType::C64 => 4,
        _ => dtype.size_bytes().unwrap_or(1),
    };
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
                width,
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
            TensorChange::Changed(elements) | TensorChange::Reshaped(Some(elements)) => {
                (elements.similarity, elements.relative_change)
            }
            TensorChange::Reshaped(None) | TensorChange::Added | TensorChange::Removed => continue,
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
        let of = |a: &[f32], b: &[f32]| Sums::of(DType::F32, 4, &bytes(a), &bytes(b)).change();
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
}
