//! Storing tensors anew without a base that is to go.

use std::sync::Arc;

use super::base::link_to;
use super::body_writer::{BodyWriter, EncodedChunk, Encoding};
use super::changes::{Changes, Rewrite};
use super::core::Core;
use super::session::Session;
use super::tensor::Tensor;
use crate::record::ObjectRecord;
use crate::{WeightError, WeightHash, parallel};

/// Chunks that are read and encoded at once.
const CHUNKS_AT_ONCE: usize = 16;

impl Core {
    /// Stores what is stored against a tensor otherwise, so that nothing needs it any more; returns how many
    /// tensors.
    ///
    /// The first takes its place, against its base or alone, and the others are stored against that one. No
    /// chain grows.
    pub(super) fn rebase_from(&self, hash: &WeightHash) -> Result<u64, WeightError> {
        let Some(base) = self.tensor(hash)? else {
            return Ok(0);
        };
        let dependents: Vec<WeightHash> = self.catalog().dependents_of(hash).collect();
        let mut heir: Option<Arc<Tensor>> = None;
        let mut stored = 0;
        for dependent in dependents {
            let below = heir.as_ref().or(base.base.as_ref());
            let anew =
                self.in_session(|session| self.store_anew(session, &dependent, hash, below))?;
            stored += u64::from(anew);
            if heir.is_none() && anew {
                heir = self.tensor(&dependent)?.map(Arc::new);
            }
        }
        Ok(stored)
    }

    /// Stores a tensor against another base, or alone; whether it was there and stored against the old one.
    fn store_anew(
        &self,
        session: &Session<'_>,
        hash: &WeightHash,
        old: &WeightHash,
        base: Option<&Arc<Tensor>>,
    ) -> Result<bool, WeightError> {
        if !session.keep(hash) {
            return Ok(false);
        }
        let Some(tensor) = self.tensor(hash)? else {
            return Ok(false);
        };
        if tensor.record.base.is_none_or(|link| link.hash != *old) {
            return Ok(false);
        }
        let base = base.filter(|base| session.keep(&base.hash));
        let mut changes = Changes::default();
        let writer = self.encode_anew(session, &mut changes, &tensor, base)?;
        let base = base.filter(|_| writer.needs_base());
        let now = ObjectRecord {
            base: base.map(|base| link_to(base)),
            body: writer.finish(),
            shape: tensor.record.shape.clone(),
            ..tensor.record
        };
        changes.add_rewrite(Rewrite {
            hash: *hash,
            before: tensor.record,
            now,
        });
        session.commit(changes)?;
        Ok(true)
    }

    /// Reads, checks and encodes all chunks of a tensor; full changes are committed on the way.
    fn encode_anew(
        &self,
        session: &Session<'_>,
        changes: &mut Changes,
        tensor: &Tensor,
        base: Option<&Arc<Tensor>>,
    ) -> Result<BodyWriter, WeightError> {
        let body = &tensor.record.body;
        let mut writer = BodyWriter::new(body.len_bytes);
        let chunks: Vec<_> = body.chunks.iter().enumerate().collect();
        for group in chunks.chunks(CHUNKS_AT_ONCE) {
            let threads = self.config.threads();
            let encoded = parallel::map(threads, group.to_vec(), |(index, entry)| {
                let encoding = Encoding {
                    codec: self.config.codec(),
                    dtype: tensor.record.dtype,
                    base: base.map(|base| (Arc::clone(base), index)),
                };
                let raw = self.chunk(tensor.source(), index)?;
                EncodedChunk::from_buffer(self, &encoding, raw).map(|encoded| (entry.leaf, encoded))
            });
            for result in encoded {
                let (leaf, encoded) = result?;
                if changes.is_full(encoded.bytes.len(), self.batch_bytes()) {
                    session.commit(std::mem::take(changes))?;
                }
                writer.push(self, leaf, encoded, changes);
            }
        }
        Ok(writer)
    }
}
