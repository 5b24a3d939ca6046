//! Sketches of many tensors, and the nearest to one.

use std::collections::HashMap;

use core_view::DType;

use super::{Likeness, Sketch};

/// Signs that may differ, of 64, between tensors that are worth a closer look. Of two that have
/// nothing to do with each other 32 do, give or take 4.
pub(super) const SIGNS_MAX: u32 = 20;

/// Finds among many tensors one that another is nearly the same as.
///
/// ```
/// use core_view::DType;
/// use weightstore::{Sketch, SketchIndex};
///
/// let bytes = |phase: f32| -> Vec<u8> {
///     (0..4096).flat_map(|i| (i as f32 + phase).sin().to_le_bytes()).collect()
/// };
/// let sketch = |bytes: &[u8]| Sketch::of(DType::F32, &[64, 64], bytes).ok_or("too small");
/// let mut index = SketchIndex::default();
/// index.insert(1, sketch(&bytes(0.0))?);
/// index.insert(2, sketch(&bytes(1.0))?);
/// let (nearest, _) = index.nearest(&sketch(&bytes(1.01))?).ok_or("nothing is like it")?;
/// assert_eq!(*nearest, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SketchIndex<T> {
    buckets: HashMap<(DType, u64, u64), Vec<Entry<T>>>,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    signs: u64,
    sketch: Sketch,
    tensor: T,
}

impl<T> Default for SketchIndex<T> {
    fn default() -> Self {
        Self {
            buckets: HashMap::new(),
        }
    }
}

impl<T: PartialEq> SketchIndex<T> {
    /// Adds a tensor.
    pub fn insert(&mut self, tensor: T, sketch: Sketch) {
        let entry = Entry {
            signs: sketch.signs(),
            sketch,
            tensor,
        };
        let bucket = self.buckets.entry(entry.sketch.bucket()).or_default();
        bucket.push(entry);
    }

    /// Removes a tensor that was added with that sketch; whether it was there.
    pub fn remove(&mut self, tensor: &T, sketch: &Sketch) -> bool {
        let Some(bucket) = self.buckets.get_mut(&sketch.bucket()) else {
            return false;
        };
        let before = bucket.len();
        bucket.retain(|entry| entry.tensor != *tensor);
        let removed = bucket.len() < before;
        if bucket.is_empty() {
            self.buckets.remove(&sketch.bucket());
        }
        removed
    }

    /// The tensor that a difference from is likely to be smallest, with how near it is; `None` if no
    /// difference is promising.
    pub fn nearest(&self, sketch: &Sketch) -> Option<(&T, Likeness)> {
        let signs = sketch.signs();
        self.buckets
            .get(&sketch.bucket())?
            .iter()
            .filter(|entry| (entry.signs ^ signs).count_ones() <= SIGNS_MAX)
            .filter_map(|entry| Some((&entry.tensor, entry.sketch.likeness(sketch)?)))
            .filter(|(_, likeness)| likeness.is_promising())
            .min_by(|(_, a), (_, b)| a.distance().total_cmp(&b.distance()))
    }
}
