//! Storing tensors anew without a base that is to go.

use std::sync::Arc;

use super::base::{is_sketched, keeps_sketch, link_to};
use super::body_writer::{BodyWriter, EncodedChunk, Encoding};
use super::catalog::ObjectEntry;
use super::changes::{Changes, Rewrite};
use super::core::Core;
use super::reachability::Released;
use super::session::Session;
use super::tensor::Tensor;
use crate::record::ObjectRecord;
use crate::sketch::SketchBuilder;
use crate::{Sketch, WeightError, WeightHash, parallel};

/// Chunks that are read and encoded at once.
const CHUNKS_AT_ONCE: usize = 16;

impl Core {
    /// Deletes those of the tensors that are there only because others are stored against them, after storing those
    /// otherwise; returns how many were stored otherwise, and what was deleted.
    pub(super) fn remove_bases(
        &self,
        mut bases: Vec<WeightHash>,
    ) -> Result<(u64, Released), WeightError> {
        let (mut stored, mut removed) = (0, Released::default());
        loop {
            {
                let catalog = self.catalog();
                bases.retain(|base| catalog.is_only_a_base(base));
            }
            if bases.is_empty() {
                return Ok((stored, removed));
            }
            stored += self.rebase_from(&bases)?;
            let now = self.release(&bases.iter().copied().collect())?;
            removed.tensors += now.tensors;
            removed.bases += now.bases;
            removed.freed_bytes += now.freed_bytes;
            // Of bases that are stored against each other some take another round.
            if now.tensors == 0 {
                return Ok((stored, removed));
            }
        }
    }

    /// A tensor, unless its header or that of a base is damaged.
    fn whole(&self, hash: &WeightHash) -> Result<Option<Tensor>, WeightError> {
        match self.tensor(hash) {
            Err(WeightError::Corrupt { .. } | WeightError::Newer { .. }) => Ok(None),
            tensor => tensor,
        }
    }

    /// Stores what is stored against some tensors otherwise, so that nothing needs them any more; returns how
    /// many tensors.
    ///
    /// Of those that are stored against the same one, the first takes its place, against its base or alone, and
    /// the others are stored against that one. No chain grows.
    pub(super) fn rebase_from(&self, bases: &[WeightHash]) -> Result<u64, WeightError> {
        self.in_session(|session| {
            let mut anew = Anew::new(self, session);
            let mut others = Vec::new();
            for hash in bases {
                let Some(base) = self.whole(hash)? else {
                    continue;
                };
                let dependents: Vec<WeightHash> = self.catalog().dependents_of(hash).collect();
                if let Some((first, rest)) = dependents.split_first() {
                    anew.store(first, hash, base.base.as_ref())?;
                    others.extend(rest.iter().map(|other| (*other, *hash, *first)));
                }
            }
            // Before anything is stored against the first ones.
            anew.commit()?;
            for (hash, old, first) in others {
                let base = self.whole(&first)?.map(Arc::new);
                // It could not take the place: it was deleted, or is stored otherwise by somebody else.
                let base = base.filter(|base| base.record.base.is_none_or(|link| link.hash != old));
                anew.store(&hash, &old, base.as_ref())?;
            }
            anew.commit()?;
            Ok(anew.stored)
        })
    }
}

/// Tensors that are being stored otherwise.
struct Anew<'a> {
    core: &'a Core,
    session: &'a Session<'a>,
    changes: Changes,
    stored: u64,
}

impl<'a> Anew<'a> {
    fn new(core: &'a Core, session: &'a Session<'a>) -> Self {
        Self {
            core,
            session,
            changes: Changes::default(),
            stored: 0,
        }
    }

    fn commit(&mut self) -> Result<(), WeightError> {
        self.session
            .commit(std::mem::take(&mut self.changes))
            .map(drop)
    }

    /// Stores a tensor against another base, or alone, unless it is not stored against the old one any more.
    fn store(
        &mut self,
        hash: &WeightHash,
        old: &WeightHash,
        base: Option<&Arc<Tensor>>,
    ) -> Result<(), WeightError> {
        if !self.session.keep(hash) {
            return Ok(());
        }
        let Some(tensor) = self.core.whole(hash)? else {
            return Ok(());
        };
        if tensor.record.base.is_none_or(|link| link.hash != *old) {
            return Ok(());
        }
        let base = base.filter(|base| {
            let shallow = tensor.record.depth() > base.record.depth();
            shallow && self.session.keep(&base.hash)
        });
        let Some((writer, sketch)) = self.encode(&tensor, base)? else {
            return Ok(());
        };
        let base = base.filter(|_| writer.needs_base());
        let now = ObjectRecord {
            base: base.map(|base| link_to(base)),
            body: writer.finish(),
            shape: tensor.record.shape.clone(),
            ..tensor.record
        };
        let sketched = |entry: &ObjectEntry| entry.sketch.is_some();
        let has_sketch = self.core.catalog().object(hash).is_some_and(sketched);
        self.changes.add_rewrite(Rewrite {
            hash: *hash,
            before: tensor.record,
            sketch: sketch.filter(|_| !has_sketch && keeps_sketch(&now.body)),
            now,
        });
        self.stored += 1;
        Ok(())
    }

    /// Reads, checks and encodes all chunks of a tensor; full changes are committed on the way. `None` for one that is
    /// damaged: it stays as it is, with its base.
    fn encode(
        &mut self,
        tensor: &Tensor,
        base: Option<&Arc<Tensor>>,
    ) -> Result<Option<(BodyWriter, Option<Sketch>)>, WeightError> {
        let core = self.core;
        let record = &tensor.record;
        let body = &record.body;
        let mut sketch = is_sketched(body.len_bytes)
            .then(|| SketchBuilder::new(record.dtype, &record.shape, body.len_bytes))
            .flatten();
        let mut writer = BodyWriter::new(body.len_bytes);
        let chunks: Vec<_> = body.chunks.iter().enumerate().collect();
        for group in chunks.chunks(CHUNKS_AT_ONCE) {
            let read = parallel::map(core.config.threads(), group.to_vec(), |(index, entry)| {
                let raw = core.chunk(tensor.source(), index)?;
                Ok((index, entry.leaf, raw))
            });
            let mut chunks = Vec::with_capacity(read.len());
            for chunk in read {
                let (index, leaf, raw) = match chunk {
                    Ok(chunk) => chunk,
                    Err(WeightError::Corrupt { .. }) => {
                        if let Some((body, count)) = writer.started() {
                            self.changes.drop_body(body, count);
                        }
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                if let Some(sketch) = &mut sketch {
                    sketch.update(&raw);
                }
                chunks.push((index, leaf, raw));
            }
            let encoded = parallel::map(core.config.threads(), chunks, |(index, leaf, raw)| {
                let encoding = Encoding {
                    codec: core.config.codec(),
                    dtype: record.dtype,
                    base: base.map(|base| (Arc::clone(base), index)),
                };
                EncodedChunk::from_buffer(core, &encoding, raw).map(|encoded| (leaf, encoded))
            });
            for result in encoded {
                let (leaf, encoded) = result?;
                if self
                    .changes
                    .is_full(encoded.bytes.len(), core.batch_bytes())
                {
                    self.commit()?;
                }
                writer.push(core, leaf, encoded, &mut self.changes);
            }
        }
        Ok(Some((writer, sketch.map(SketchBuilder::finish))))
    }
}
