//! Tensors and models as they are stored, in and out.

use std::sync::{MutexGuard, PoisonError};

use core_view::BufferMut;
use tier_nvme::CheckedValue;

use super::base::is_sketched;
use super::changes::{Changes, NewModel, NewObject};
use super::core::Core;
use super::export::header_of;
use super::import::{check_name, hint_of};
use super::session::Session;
use super::tensor::{Source, Tensor};
use super::{Entered, NativeStore};
use crate::encoded::{EncodedModel, EncodedObject, EncodedSink, EncodedSource};
use crate::record::{
    BaseLink, BodyId, DEPTH_MAX, Key, Manifest, ObjectRecord, Place, StagingRecord,
};
use crate::sketch::SketchBuilder;
use crate::{AliasHasher, Sketch, WeightError, WeightHash, parallel};

/// Chunks that are decoded ahead of the one that is looked at.
const CHUNKS_AHEAD: usize = 16;
/// Chunks whose deletion is committed together.
const DELETES_AT_ONCE: u32 = 16_384;

/// Nobody else begins, drops or publishes a transfer.
type Transfers<'a> = MutexGuard<'a, ()>;

impl EncodedSource for NativeStore {
    fn encoded(&self, hash: &WeightHash) -> Result<Option<EncodedObject>, WeightError> {
        let core = self.enter()?;
        let record = core.object(hash)?;
        Ok(record.map(|record| EncodedObject::new(*hash, record)))
    }

    fn read_encoded(
        &self,
        object: &EncodedObject,
        offset_bytes: u64,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let core = self.enter()?;
        core.read_encoded(object, offset_bytes, target)
    }

    fn encoded_model(&self, name: &str) -> Result<Option<EncodedModel>, WeightError> {
        let core = self.enter()?;
        let manifest = match core.manifest(name) {
            Err(WeightError::ModelNotFound { .. }) => return Ok(None),
            manifest => manifest?,
        };
        let mut tensors: Vec<WeightHash> = manifest.roots().copied().collect();
        tensors.sort_unstable();
        tensors.dedup();
        Ok(Some(EncodedModel {
            manifest: manifest.encode(),
            tensors,
        }))
    }
}

impl EncodedSink for NativeStore {
    fn stage(&self, object: &EncodedObject) -> Result<Option<Vec<u32>>, WeightError> {
        let core = self.enter()?;
        let transfers = core.transfers();
        if core.keep_for_good(&object.hash()) {
            return Ok(None);
        }
        if let Some(base) = object.base()
            && !core.keep_for_good(&base)
        {
            return Err(WeightError::BaseNotFound {
                hash: object.hash(),
                base,
            });
        }
        let Some(record) = core.staging(&object.hash())? else {
            return core.begin_staging(object).map(Some);
        };
        if record.tag != object.tag() {
            core.drop_staged(&object.hash(), &transfers)?;
            return core.begin_staging(object).map(Some);
        }
        let missing = |index: &u32| {
            let key = Key::Chunk(record.body, *index).encode();
            core.blobs.len_of(&key).is_none()
        };
        Ok(Some((0..object.chunk_count()).filter(missing).collect()))
    }

    fn stage_chunks(
        &self,
        object: &EncodedObject,
        chunks: Vec<(u32, BufferMut)>,
    ) -> Result<(), WeightError> {
        let core = self.enter()?;
        let record = core.staging_of(object)?;
        let tensor = core.arriving(object)?;
        let checked = parallel::map(core.config.threads(), chunks, |(index, encoded)| {
            core.check_encoded(&tensor, index as usize, &encoded)
                .map(|()| (index, CheckedValue::new(encoded)))
        });
        let mut changes = Changes::default();
        for chunk in checked {
            let (index, encoded) = chunk?;
            changes.add_chunk(record.body, index, encoded);
        }
        core.commit(changes).map(drop)
    }

    fn publish(&self, object: &EncodedObject) -> Result<(), WeightError> {
        let core = self.enter()?;
        core.in_session(|session| {
            core.publish_object(session, object)?;
            // Before the session ends, which takes away what nothing needs.
            core.keep_for_good(&object.hash());
            Ok(())
        })
    }

    fn discard(&self, hash: &WeightHash) -> Result<bool, WeightError> {
        let core = self.enter()?;
        let transfers = core.transfers();
        core.drop_staged(hash, &transfers)
    }

    fn staged(&self) -> Result<Vec<WeightHash>, WeightError> {
        let core = self.enter()?;
        Ok(core.staged().map(|(hash, _)| hash).collect())
    }

    fn publish_model(&self, name: &str, manifest: &[u8], replace: bool) -> Result<(), WeightError> {
        check_name("model name", name)?;
        let core = self.enter()?;
        core.in_session(|session| core.publish_model(session, name, manifest, replace))
    }
}

impl Core {
    /// Keeps a tensor until the store is closed: its transfer may be one of many that a model waits for.
    fn keep_for_good(&self, hash: &WeightHash) -> bool {
        self.catalog().pin(hash)
    }

    /// Held while a transfer begins, is dropped or becomes a tensor: of two who do that at once, each would take away what
    /// the other relies on.
    fn transfers(&self) -> Transfers<'_> {
        let transfers = self.transfers.lock();
        transfers.unwrap_or_else(PoisonError::into_inner)
    }

    fn staging(&self, hash: &WeightHash) -> Result<Option<StagingRecord>, WeightError> {
        let Some(record) = self.read(&Key::Staging(*hash))? else {
            return Ok(None);
        };
        let parsed = StagingRecord::parse(&record);
        parsed
            .map(Some)
            .map_err(|error| error.about("staged tensor", hash.to_string()))
    }

    /// What is staged, with the bodies that it is under; what can't be read is left out.
    pub(super) fn staged(&self) -> impl Iterator<Item = (WeightHash, Option<BodyId>)> {
        let keys = self.blobs.keys_with_prefix(Key::STAGING).into_iter();
        keys.filter_map(|key| match Key::parse(&key) {
            Some(Key::Staging(hash)) => {
                let record = self.staging(&hash).ok().flatten();
                Some((hash, record.map(|record| record.body)))
            }
            _ => None,
        })
    }

    /// The transfer of an encoding, which has to be under way.
    fn staging_of(&self, object: &EncodedObject) -> Result<StagingRecord, WeightError> {
        let record = self.staging(&object.hash())?;
        record
            .filter(|record| record.tag == object.tag())
            .ok_or_else(|| WeightError::NotStaged {
                hash: object.hash(),
                reason: "no transfer of this encoding has begun",
            })
    }

    fn begin_staging(&self, object: &EncodedObject) -> Result<Vec<u32>, WeightError> {
        // In a session: a collection that begins before the record is there sees its body behind the fence.
        self.in_session(|session| {
            let record = StagingRecord {
                body: self.new_body(),
                tag: object.tag(),
                chunks: object.chunk_count(),
            };
            let mut changes = Changes::default();
            let key = Key::Staging(object.hash());
            changes.add_record(key, record.encode(), record.body);
            session.commit(changes)
        })?;
        Ok((0..object.chunk_count()).collect())
    }

    /// Drops what arrived of a tensor; whether there was something.
    fn drop_staged(&self, hash: &WeightHash, _: &Transfers<'_>) -> Result<bool, WeightError> {
        let Some(record) = self.staging(hash)? else {
            return Ok(false);
        };
        let mut start = 0;
        while start < record.chunks {
            let end = record.chunks.min(start + DELETES_AT_ONCE);
            let mut changes = Changes::default();
            for index in start..end {
                changes
                    .deletes
                    .insert(Key::Chunk(record.body, index).encode());
            }
            self.commit(changes)?;
            start = end;
        }
        // Last: until then the record names the chunks.
        let mut changes = Changes::default();
        changes.deletes.insert(Key::Staging(*hash).encode());
        self.commit(changes)?;
        Ok(true)
    }

    /// The tensor that an encoding is to become here, with its bases.
    fn arriving(&self, object: &EncodedObject) -> Result<Tensor, WeightError> {
        let mut record: ObjectRecord = object.record.clone();
        if let Some(link) = &mut record.base {
            let not_found = || WeightError::BaseNotFound {
                hash: object.hash(),
                base: link.hash,
            };
            let base = self.object(&link.hash)?.ok_or_else(not_found)?;
            if base.depth() >= DEPTH_MAX {
                return Err(WeightError::NotStaged {
                    hash: object.hash(),
                    reason: "its base has as many bases below it as there may be; store it decoded",
                });
            }
            *link = BaseLink {
                hash: link.hash,
                depth: base.depth() + 1,
            };
        }
        self.with_bases(object.hash(), record)
    }

    /// Decodes a chunk that has arrived, and compares it with its leaf.
    fn check_encoded(
        &self,
        tensor: &Tensor,
        index: usize,
        encoded: &[u8],
    ) -> Result<(), WeightError> {
        let source: Source<'_> = tensor.source();
        let entry = tensor.record.body.chunks.get(index);
        let entry = entry.ok_or_else(|| source.corrupt(index, "there is no such chunk"))?;
        if encoded.len() != entry.encoded_len as usize {
            let reason = format!("{} bytes arrived of {}", encoded.len(), entry.encoded_len);
            return Err(source.corrupt(index, reason));
        }
        let mut decoded = self.buffers.take(tensor.record.body.chunk_len(index))?;
        self.decode_and_check(source, index, encoded, &mut decoded)
    }

    /// Makes what arrived of a tensor a tensor; if that is there already, drops what arrived.
    fn publish_object(
        &self,
        session: &Session<'_>,
        object: &EncodedObject,
    ) -> Result<(), WeightError> {
        if session.keep(&object.hash()) {
            return self
                .drop_staged(&object.hash(), &self.transfers())
                .map(drop);
        }
        let staging = self.staging_of(object)?;
        if let Some(base) = object.base()
            && !session.keep(&base)
        {
            return Err(WeightError::BaseNotFound {
                hash: object.hash(),
                base,
            });
        }
        self.check_arrived(object, &staging)?;
        let mut tensor = self.arriving(object)?;
        if let Place::Chunks(body) = &mut tensor.record.body.place {
            *body = staging.body;
        }
        let sketch = self.check_content(&tensor);
        let transfers = self.transfers();
        // Another one may have published it while it was read, or dropped it.
        if session.keep(&object.hash()) {
            return self.drop_staged(&object.hash(), &transfers).map(drop);
        }
        if self.staging_of(object)? != staging {
            return Err(WeightError::NotStaged {
                hash: object.hash(),
                reason: "its transfer began anew while it was published",
            });
        }
        self.check_arrived(object, &staging)?;
        let mut changes = Changes::default();
        changes.deletes.insert(Key::Staging(object.hash()).encode());
        changes.add_object(NewObject {
            hash: object.hash(),
            hint: hint_of(&tensor.record),
            record: tensor.record,
            sketch: sketch?,
        });
        session.commit(changes).map(drop)
    }

    fn check_arrived(
        &self,
        object: &EncodedObject,
        staging: &StagingRecord,
    ) -> Result<(), WeightError> {
        let mut keys = (0..object.chunk_count()).map(|index| Key::Chunk(staging.body, index));
        let lacks = keys.any(|key| self.blobs.len_of(key.encode()).is_none());
        match lacks {
            true => Err(WeightError::NotStaged {
                hash: object.hash(),
                reason: "chunks of it are missing",
            }),
            false => Ok(()),
        }
    }

    /// Compares all content with its leaves and its alias, which the hash does not cover; returns its sketch.
    fn check_content(&self, tensor: &Tensor) -> Result<Option<Sketch>, WeightError> {
        let record = &tensor.record;
        let len_bytes = record.body.len_bytes;
        let mut alias = AliasHasher::new(record.dtype, &record.shape);
        let sketched = is_sketched(len_bytes);
        let builder = || SketchBuilder::new(record.dtype, &record.shape, len_bytes);
        let mut sketch = sketched.then(builder).flatten();
        parallel::stream(
            self.fetch_threads(),
            CHUNKS_AHEAD,
            (0..record.body.chunks.len()).map(Ok),
            |index| self.chunk(tensor.source(), index),
            |chunk| {
                alias.update(&chunk);
                if let Some(sketch) = &mut sketch {
                    sketch.update(&chunk);
                }
                Ok(())
            },
        )?;
        if alias.finish() != record.alias {
            let reason = format!(
                "its alias is {}, its header says {}",
                alias.finish(),
                record.alias
            );
            return Err(WeightError::corrupt(
                "tensor",
                tensor.hash.to_string(),
                reason,
            ));
        }
        Ok(sketch.map(SketchBuilder::finish))
    }

    fn publish_model(
        &self,
        session: &Session<'_>,
        name: &str,
        manifest: &[u8],
        replace: bool,
    ) -> Result<(), WeightError> {
        let about = |error: crate::record::RecordError| error.about("model", format!("{name:?}"));
        let manifest = Manifest::parse(manifest).map_err(about)?;
        for file in &manifest.files {
            check_name("file name", &file.name)?;
            let header = header_of(name, file)?;
            for (info, root) in header.tensors().iter().zip(&file.roots) {
                if !session.keep(root) {
                    let damage =
                        WeightError::corrupt("tensor", root.to_string(), "it is not there yet");
                    return Err(damage.within(&format!("{:?} of model {name:?}", info.name)));
                }
                self.stored(name, info, root)?;
            }
        }
        let mut changes = Changes::default();
        changes.model = Some(NewModel {
            name: name.to_owned(),
            manifest,
            replace,
        });
        let committed = session.commit(changes)?;
        self.let_go(&committed.replaced);
        Ok(())
    }
}

impl Entered<'_> {
    fn read_encoded(
        &self,
        object: &EncodedObject,
        offset_bytes: u64,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let len_bytes = target.len() as u64;
        let end = offset_bytes.checked_add(len_bytes);
        let Some(end) = end.filter(|end| *end <= object.len_bytes()) else {
            return Err(WeightError::OutOfRange {
                name: format!("encoded tensor {}", object.hash()),
                offset_bytes,
                len_bytes,
                tensor_bytes: object.len_bytes(),
            });
        };
        let moved = || WeightError::Moved {
            hash: object.hash(),
        };
        let record = self.object(&object.hash())?.ok_or_else(moved)?;
        let place = record.body.place.clone();
        if EncodedObject::new(object.hash(), record).tag() != object.tag() {
            return Err(moved());
        }
        let head = object.head();
        let from_head = head.get(usize::try_from(offset_bytes).unwrap_or(usize::MAX)..);
        let from_head = from_head.unwrap_or_default();
        let (in_head, mut rest) = target.split_at_mut(from_head.len().min(len_bytes as usize));
        in_head.copy_from_slice(from_head.get(..in_head.len()).unwrap_or_default());
        let Place::Chunks(body) = place else {
            return Ok(());
        };
        let first = offset_bytes.max(head.len() as u64);
        for (index, part) in object.chunks_in(first..end) {
            let chunk = self.read(&Key::Chunk(body, index))?.ok_or_else(moved)?;
            let start = object.chunk_range(index).map_or(0, |range| range.start);
            let within = (part.start - start) as usize..(part.end - start) as usize;
            let (piece, after) = rest.split_at_mut(within.len());
            piece.copy_from_slice(chunk.get(within).ok_or_else(moved)?);
            rest = after;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
