//! What is known of the tensors of a file while they are imported.

use std::collections::HashMap;
use std::sync::Arc;

use core_view::safetensors::TensorInfo;
use sha2::Sha256;

use super::alias_chain::AliasChain;
use super::bases::Bases;
use super::group::{HINT_CHUNKS, Part, Slot};
use super::pipeline::FileTensors;
use crate::alias::AliasHasher;
use crate::identity::{Leaf, chunk_count, hint, tensor_root};
use crate::native::base::is_sketched;
use crate::native::body_writer::BodyWriter;
use crate::native::core::Core;
use crate::native::session::Session;
use crate::native::tensor::Tensor;
use crate::sketch::SketchBuilder;
use crate::{Sketch, WeightError, WeightHash};

/// What becomes of a tensor's chunks.
#[derive(Debug)]
enum Mode {
    /// Not known before its first part is hashed.
    Undecided,
    /// They are compared with those of a stored tensor that begins the same way.
    Compare { hash: WeightHash, leaves: Vec<Leaf> },
    /// They are stored.
    Write,
}

/// The large tensors that this import has stored, by how they begin.
pub(super) type Begun = HashMap<[u8; 16], (WeightHash, Vec<Leaf>)>;

/// What a tensor may be stored against.
#[derive(Debug)]
enum Base {
    /// Not looked for yet.
    Unsought,
    /// Its chunks are tried against this, if there is anything.
    Sought(Option<Arc<Tensor>>),
}

/// A tensor of which some chunks are decided on.
pub(super) struct OpenTensor {
    index: usize,
    leaves: Vec<Leaf>,
    pub(super) alias: Arc<AliasChain>,
    mode: Mode,
    pub(super) writer: BodyWriter,
    base: Base,
    sketch: Option<SketchBuilder>,
    /// The state of the whole file's hash before the tensor.
    pub(super) sha256_before: Option<Sha256>,
}

/// What is to be done with a part.
pub(super) enum Verdict {
    /// Its tensor is stored already, or is compared so far without a difference.
    Skip,
    /// Its chunks are to be stored.
    Write,
    /// The tensor is not the stored one that it began like; it has to be read again.
    Restart,
}

impl OpenTensor {
    pub(super) fn new(index: usize, info: &TensorInfo, sha256: Option<&Sha256>) -> Self {
        Self {
            index,
            leaves: Vec::new(),
            alias: Arc::new(AliasChain::new(AliasHasher::new(info.dtype, &info.shape))),
            mode: Mode::Undecided,
            writer: BodyWriter::new(info.len_bytes()),
            base: Base::Unsought,
            sketch: is_sketched(info.len_bytes())
                .then(|| SketchBuilder::new(info.dtype, &info.shape, info.len_bytes()))
                .flatten(),
            sha256_before: sha256.cloned(),
        }
    }

    /// The hash of the tensor, once all its chunks are known.
    pub(super) fn root(&self, info: &TensorInfo) -> WeightHash {
        tensor_root(info.dtype, &info.shape, info.len_bytes(), &self.leaves)
    }

    /// The tensor is stored without a look for one that begins like it.
    pub(super) fn write_anyway(&mut self) {
        self.mode = Mode::Write;
    }

    /// Takes the leaves of the next part and decides on it.
    pub(super) fn decide(
        &mut self,
        (core, session): (&Core, &Session<'_>),
        begun: &Begun,
        info: &TensorInfo,
        part: &Part,
        slots: &[Slot],
    ) -> Result<Verdict, WeightError> {
        debug_assert_eq!(part.tensor, self.index);
        self.leaves.extend(slots.iter().map(|slot| slot.leaf));
        if matches!(self.mode, Mode::Undecided) {
            self.mode = self.first_mode(core, session, begun, info)?;
        }
        match &self.mode {
            Mode::Compare { leaves, .. } if !leaves.starts_with(&self.leaves) => {
                Ok(Verdict::Restart)
            }
            Mode::Compare { .. } => Ok(Verdict::Skip),
            Mode::Undecided | Mode::Write => Ok(Verdict::Write),
        }
    }

    fn first_mode(
        &self,
        core: &Core,
        session: &Session<'_>,
        begun: &Begun,
        info: &TensorInfo,
    ) -> Result<Mode, WeightError> {
        let large = chunk_count(info.len_bytes()) > HINT_CHUNKS as u64;
        let Some(first) = self.leaves.get(..HINT_CHUNKS).filter(|_| large) else {
            return Ok(Mode::Write);
        };
        let key = hint(info.dtype, &info.shape, info.len_bytes(), first);
        if let Some((hash, leaves)) = begun.get(&key) {
            return Ok(Mode::Compare {
                hash: *hash,
                leaves: leaves.clone(),
            });
        }
        let candidates = core.catalog().hinted(key);
        for hash in candidates {
            if !session.keep(&hash) {
                continue;
            }
            match core.object(&hash) {
                Ok(Some(record)) => {
                    let leaves = record.body.leaves();
                    return Ok(Mode::Compare { hash, leaves });
                }
                // A damaged one is of no use here; verify reports it.
                Ok(None) | Err(WeightError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Mode::Write)
    }

    /// The stored tensor that this one turned out to be, once its last part is decided on.
    pub(super) fn compared_with(&self) -> Option<WeightHash> {
        match self.mode {
            Mode::Compare { hash, .. } => Some(hash),
            Mode::Undecided | Mode::Write => None,
        }
    }

    /// Takes what the sketch needs of a part that is to be stored.
    pub(super) fn take_bytes(&mut self, slots: &[Slot]) {
        if let Some(sketch) = &mut self.sketch {
            let chunks = slots.iter().filter_map(|slot| slot.raw.as_ref());
            chunks.for_each(|raw| sketch.update(raw));
        }
    }

    /// Whether a base has yet to be looked for.
    pub(super) fn is_baseless(&self) -> bool {
        matches!(self.base, Base::Unsought)
    }

    /// Looks for a base; `whole` says that all bytes were taken.
    pub(super) fn seek_base(
        &mut self,
        place: (&Core, &Session<'_>),
        bases: &Bases,
        file: &FileTensors<'_>,
        whole: bool,
    ) -> Result<(), WeightError> {
        let Some(info) = file.tensors.get(self.index) else {
            return Ok(());
        };
        let sketch = self.sketch.as_ref().filter(|_| whole);
        let sketch = sketch.map(SketchBuilder::so_far);
        self.base = Base::Sought(bases.of(place, file, info, sketch)?);
        Ok(())
    }

    /// What its chunks are tried against.
    pub(super) fn base(&self) -> Option<&Arc<Tensor>> {
        match &self.base {
            Base::Sought(base) => base.as_ref(),
            Base::Unsought => None,
        }
    }

    /// What does not begin like its base is not compared with it to the end.
    pub(super) fn review_base(&mut self) {
        if !self.writer.needs_base() {
            self.base = Base::Sought(None);
        }
    }

    /// The base, if it is needed, and the sketch, once all bytes were taken.
    pub(super) fn conclude(&mut self) -> (Option<Arc<Tensor>>, Option<Sketch>) {
        self.review_base();
        let sketch = self.sketch.take().map(SketchBuilder::finish);
        (self.base().cloned(), sketch)
    }
}
