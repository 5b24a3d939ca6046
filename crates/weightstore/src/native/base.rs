//! Finding what a tensor is nearly the same as.

use std::sync::Arc;

use core_view::DType;

use super::core::Core;
use super::export::header_of;
use super::session::Session;
use super::tensor::Tensor;
use crate::record::{BaseLink, Body, Key};
use crate::{Sketch, SketchPlace, WeightError, WeightHash};

/// Below this a tensor has no sketch, which would be a noticeable part of it.
pub(super) const SKETCHED_LEN_MIN: u64 = 32 << 10;

/// Below this what is stored of a tensor, a difference above all, is not worth a sketch either. What is like it
/// is like its base, which has one.
const STORED_LEN_MIN: u64 = 16 << 10;

/// Stored sketches that are read to find a base.
const CANDIDATES: usize = 8;

/// Whether tensors of that length are sketched.
pub(super) fn is_sketched(len_bytes: u64) -> bool {
    len_bytes >= SKETCHED_LEN_MIN
}

/// The sketch of a tensor in memory, if it is to have one.
pub(super) fn sketch_of(dtype: DType, shape: &[u64], bytes: &[u8]) -> Option<Sketch> {
    is_sketched(bytes.len() as u64).then(|| Sketch::of(dtype, shape, bytes))?
}

/// Whether a body is large enough for its tensor's sketch to be kept.
pub(super) fn keeps_sketch(body: &Body) -> bool {
    body.encoded_bytes() >= STORED_LEN_MIN
}

/// The link from a tensor that needs that base.
pub(super) fn link_to(base: &Tensor) -> BaseLink {
    BaseLink {
        hash: base.hash,
        depth: base.record.depth() + 1,
    }
}

impl Core {
    /// The stored tensor that one with this sketch is nearest to, judged by the first `slots`; it stays for
    /// the session.
    pub(super) fn nearest(
        &self,
        session: &Session<'_>,
        sketch: &Sketch,
        slots: usize,
    ) -> Result<Option<Arc<Tensor>>, WeightError> {
        let candidates = self.catalog().alike(&sketch.place(), CANDIDATES);
        let mut near = Vec::new();
        for (place, hash) in candidates {
            let Some(stored) = self.sketch(place, hash)? else {
                continue;
            };
            if let Some(likeness) = stored.likeness_within(sketch, slots)
                && likeness.is_promising()
            {
                let distance = likeness.distance();
                near.push((distance, hash));
                // Only what is the same as far as its sketch tells can't be outdone. What is near can: a sibling
                // with noise of a thousandth in each element saves little of a tensor that differs from another
                // one in a single element. To look at all costs some 60 microseconds a candidate: with eight, a
                // tenth of what storing 256 KiB takes.
                if distance <= 0.0 {
                    break;
                }
            }
        }
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, hash) in near {
            if let Some(base) = self.base(session, &hash)? {
                return Ok(Some(base));
            }
        }
        Ok(None)
    }

    /// A tensor as a base: itself, or the first below it that may have something stored against it.
    pub(super) fn base(
        &self,
        session: &Session<'_>,
        hash: &WeightHash,
    ) -> Result<Option<Arc<Tensor>>, WeightError> {
        if !session.keep(hash) {
            return Ok(None);
        }
        let tensor = match self.tensor(hash) {
            Ok(tensor) => tensor.map(Arc::new),
            // A damaged one is of no use here; verify reports it.
            Err(WeightError::Corrupt { .. } | WeightError::Newer { .. }) => None,
            Err(error) => return Err(error),
        };
        let depth_max = self.config.chain_depth_max();
        let is_full = |tensor: &Arc<Tensor>| tensor.record.depth() >= depth_max;
        let mut base = tensor;
        if base.as_ref().is_some_and(is_full) {
            // mutant: weights-no-chain-bound
            let mut chain = std::iter::successors(base, |tensor| tensor.base.clone());
            base = chain.find(|tensor| !is_full(tensor));
        }
        Ok(base.filter(|base| base.hash == *hash || session.keep(&base.hash)))
    }

    /// A stored sketch; what can't be read is as good as none.
    fn sketch(&self, place: SketchPlace, hash: WeightHash) -> Result<Option<Sketch>, WeightError> {
        match self.read(&Key::Sketch(place, hash)) {
            Ok(record) => Ok(record.and_then(|record| Sketch::from_bytes(&record).ok())),
            Err(WeightError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The tensors of a model, by which those of another are told what to be stored against.
    pub(super) fn bases_of_model(&self, model: &str) -> Result<ModelBases, WeightError> {
        let manifest = self.manifest(model)?;
        let mut bases = ModelBases::default();
        for file in &manifest.files {
            let header = header_of(model, file)?;
            for (info, root) in header.tensors().iter().zip(&file.roots) {
                bases.insert((info.name.clone(), info.dtype), *root);
            }
        }
        Ok(bases)
    }
}

/// The tensors of a model by name and type.
pub(super) type ModelBases = std::collections::HashMap<(String, DType), WeightHash>;
