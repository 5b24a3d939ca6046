//! Commit points: where changes become durable and visible.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};

use core_view::BufferMut;
use core_view::contract::Transfer;
use tier_nvme::{CheckedValue, WriteBatch};

use super::changes::{Changes, NewModel};
use super::core::{Core, Ledger};
use crate::record::{
    BASE_LINK_RECORD, BodyId, BodyReservation, HINT_RECORD, Key, LabelRecord, Manifest, Place,
    StoreRecord,
};
use crate::{WeightError, WeightHash};

/// Body numbers that are reserved at once.
const BODIES_PER_RESERVATION: u64 = 1 << 20;

/// What a commit did.
#[derive(Debug, Default)]
pub(super) struct Committed {
    /// Tensors that are new in the store.
    pub(super) new_tensors: u64,
    /// Bytes of all values put.
    pub(super) stored_bytes: u64,
    /// Whether the model was there already with the same content.
    pub(super) model_was_there: bool,
    /// The tensors of the model that gave way.
    pub(super) replaced: BTreeSet<WeightHash>,
}

impl Core {
    /// Commits changes. Tensors in `objects` are pinned for the caller, new or not.
    pub(super) fn commit(&self, changes: Changes) -> Result<Committed, WeightError> {
        if changes.is_empty() {
            return Ok(Committed::default());
        }
        let mut ledger = self.ledger();
        self.commit_locked(&mut ledger, changes)
    }

    pub(super) fn commit_locked(
        &self,
        ledger: &mut MutexGuard<'_, Ledger>,
        mut changes: Changes,
    ) -> Result<Committed, WeightError> {
        let mut committed = Committed::default();
        let present = self.drop_what_is_there(&mut changes);
        self.check_rewrites(&mut changes)?;
        let mut model = changes.model.take();
        if let Some(new) = &mut model {
            match self.model_in_the_way(new)? {
                InTheWay::Nothing => {}
                InTheWay::Same(old) => {
                    committed.model_was_there = true;
                    if !new.replace || !new.manifest.renews(&old) {
                        model = None;
                    }
                }
                InTheWay::Other(roots) => committed.replaced = roots,
            }
        }
        if let Some(new) = &model {
            self.check_content_is_there(new, &changes)?; // mutant: weights-no-content-first
        }
        let labels = self.number_labels(&changes);
        let reserved = reservation(ledger, &changes);
        let mut writer = Writer::default();
        let before = ledger.format;
        let objects = changes.objects.iter().map(|object| &object.record);
        let rewrites = changes.rewrites.iter().map(|rewrite| &rewrite.now);
        let has_bases = objects.chain(rewrites).any(|record| record.base.is_some());
        let format = StoreRecord {
            has_bases: has_bases || before.is_some_and(|format| format.has_bases),
        };
        if before != Some(format) {
            writer.put(&Key::Format, format.encode());
        }
        if let Some(reserved) = reserved {
            writer.put(&Key::Bodies, BodyReservation::encode(reserved)); // mutant: weights-no-reservation
        }
        self.write_up(&mut writer, &mut changes, &labels, model.as_ref())?;
        self.blobs
            .write_batch(writer.batch)
            .map_err(|error| WeightError::storage("commit", error))?;
        ledger.format = Some(format);
        ledger.reserved = reserved.unwrap_or(ledger.reserved);
        self.note_ledger(ledger);
        committed.new_tensors = changes.objects.len() as u64;
        committed.stored_bytes = writer.stored_bytes;
        self.publish(changes, labels, model, &present);
        Ok(committed)
    }

    /// Writes chunks that no header names yet, without waiting for them; returns what to wait for, and their bytes.
    ///
    /// Nothing has to be decided about them: their bodies are nobody else's. So the next of them are written while
    /// these are synced, and commits of others go on.
    pub(super) fn send_chunks(
        &self,
        chunks: Vec<(BodyId, u32, CheckedValue)>,
    ) -> Result<(Transfer<()>, u64), WeightError> {
        let body_max = chunks.iter().map(|(body, ..)| *body).max();
        let mut reserved_bytes = 0;
        if let Some(body) = body_max {
            reserved_bytes = self.reserve(body)?; // mutant: weights-no-reservation-first
        }
        let mut writer = Writer::default();
        for (body, index, encoded) in chunks {
            writer.put_chunk(body, index, encoded);
        }
        let written = self.blobs.write_batch_async(writer.batch);
        Ok((written, reserved_bytes + writer.stored_bytes))
    }

    /// Makes the records durable that have to be there before chunks of a body, if they are not; returns their bytes. It
    /// is a batch of its own, since whoever sends content waits for it.
    fn reserve(&self, body: BodyId) -> Result<u64, WeightError> {
        if self.may_send(body) {
            return Ok(0);
        }
        let mut ledger = self.ledger();
        if self.may_send(body) {
            // Another one was here in the meantime.
            return Ok(0);
        }
        let mut changes = Changes::default();
        changes.need_body(body);
        Ok(self.commit_locked(&mut ledger, changes)?.stored_bytes)
    }

    /// Another writer may have stored the same content since it was looked up: its copy stays.
    /// Returns the tensors that were dropped.
    fn drop_what_is_there(&self, changes: &mut Changes) -> Vec<WeightHash> {
        let mut present = Vec::new();
        let catalog = self.catalog();
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut changes.objects)
            .into_iter()
            .partition(|object| catalog.object(&object.hash).is_none());
        changes.objects = stay;
        drop(catalog);
        for object in go {
            if let Place::Chunks(body) = object.record.body.place {
                changes.drop_body(body, object.record.body.chunks.len() as u32);
            }
            present.push(object.hash);
        }
        let (go, stay): (Vec<_>, Vec<_>) = {
            let catalog = self.catalog();
            std::mem::take(&mut changes.deltas)
                .into_iter()
                .partition(|(id, _)| catalog.deltas().contains(id))
        };
        changes.deltas = stay;
        for (_, record) in go {
            if let Place::Chunks(body) = record.body.place {
                changes.drop_body(body, record.body.chunks.len() as u32);
            }
        }
        present
    }

    /// Leaves out what was deleted or stored anew since it was read; deletes what the others leave behind.
    fn check_rewrites(&self, changes: &mut Changes) -> Result<(), WeightError> {
        for rewrite in std::mem::take(&mut changes.rewrites) {
            let stays = self.object_now(&rewrite.hash)?.as_ref() == Some(&rewrite.before);
            let outdated = if stays { &rewrite.before } else { &rewrite.now };
            if let Place::Chunks(body) = outdated.body.place {
                changes.drop_body(body, outdated.body.chunks.len() as u32);
            }
            if stays {
                if let (Some(before), now) = rewrite.links()
                    && now.as_ref() != Some(&before)
                {
                    changes.deletes.insert(before.encode());
                }
                changes.rewrites.push(rewrite);
            }
        }
        Ok(())
    }

    fn model_in_the_way(&self, new: &NewModel) -> Result<InTheWay, WeightError> {
        if !self.catalog().models().contains(new.name.as_str()) {
            return Ok(InTheWay::Nothing);
        }
        match self.manifest(&new.name) {
            Ok(old) if old.content_hash == new.manifest.content_hash => {
                Ok(InTheWay::Same(Box::new(old)))
            }
            Ok(old) if new.replace => Ok(InTheWay::Other(old.roots().copied().collect())),
            // What a damaged model needs can't be known any more; it may still be replaced.
            Err(WeightError::Corrupt { .. }) if new.replace => Ok(InTheWay::Other(BTreeSet::new())),
            Ok(_) => Err(WeightError::ModelExists {
                name: new.name.clone(),
            }),
            Err(error) => Err(error),
        }
    }

    /// Refuses a manifest that names what is not there and does not come with it: whatever instant the power fails,
    /// no reader finds a model without its content.
    fn check_content_is_there(&self, new: &NewModel, changes: &Changes) -> Result<(), WeightError> {
        let coming: BTreeSet<&WeightHash> =
            changes.objects.iter().map(|object| &object.hash).collect();
        let catalog = self.catalog();
        let mut roots = new.manifest.roots();
        let absent = roots.find(|root| catalog.object(root).is_none() && !coming.contains(root));
        absent.map_or(Ok(()), |absent| {
            let reason = format!("it would be committed before tensor {absent}, which it names");
            Err(WeightError::corrupt(
                "model",
                format!("{:?}", new.name),
                reason,
            ))
        })
    }

    /// Gives each new use its number; uses that are there already are left out.
    fn number_labels(&self, changes: &Changes) -> Vec<NumberedLabel> {
        let catalog = self.catalog();
        let mut numbered: Vec<NumberedLabel> = Vec::new();
        for (hash, label) in &changes.labels {
            let record = LabelRecord::encode(label);
            let digest = LabelRecord::digest(&record);
            let stored = catalog.object(hash).map_or(&[][..], |entry| &entry.uses);
            let new = || numbered.iter().filter(|other| other.hash == *hash);
            if stored.iter().any(|(_, other)| *other == digest)
                || new().any(|other| other.digest == digest)
            {
                continue;
            }
            let last = new().map(|other| other.number).max();
            let last = last.or(stored.iter().map(|(number, _)| *number).max());
            let number = last.map_or(0, |last| last + 1);
            numbered.push(NumberedLabel {
                hash: *hash,
                number,
                digest,
                record,
            });
        }
        numbered
    }

    fn write_up(
        &self,
        writer: &mut Writer,
        changes: &mut Changes,
        labels: &[NumberedLabel],
        model: Option<&NewModel>,
    ) -> Result<(), WeightError> {
        for (body, index, encoded) in changes.chunks.drain(..) {
            writer.put_chunk(body, index, encoded);
        }
        for object in &changes.objects {
            let key = Key::Object(object.hash, object.record.alias);
            writer.put(&key, object.record.encode());
            if let Some(hint) = object.hint {
                writer.put(&Key::Hint(hint, object.hash), HINT_RECORD.to_vec());
            }
            if let Some(sketch) = &object.sketch {
                let key = Key::Sketch(sketch.place(), object.hash);
                writer.put(&key, sketch.to_bytes().to_vec());
            }
            if let Some(link) = object.base_link() {
                writer.put(&link, BASE_LINK_RECORD.to_vec());
            }
        }
        for rewrite in &changes.rewrites {
            let key = Key::Object(rewrite.hash, rewrite.now.alias);
            writer.put(&key, rewrite.now.encode());
            if let Some(sketch) = &rewrite.sketch {
                let key = Key::Sketch(sketch.place(), rewrite.hash);
                writer.put(&key, sketch.to_bytes().to_vec());
            }
            if let (_, Some(link)) = rewrite.links() {
                writer.put(&link, BASE_LINK_RECORD.to_vec());
            }
        }
        for (key, record) in changes.records.drain(..) {
            writer.put(&key, record);
        }
        for label in labels {
            writer.put(&label.key(), label.record.clone());
        }
        for (id, record) in &changes.deltas {
            writer.put(&Key::Delta(*id), record.encode());
        }
        if let Some(new) = model {
            let record = new.manifest.encode();
            self.check_record_size(&new.name, record.len())?;
            writer.put(&Key::Model(new.name.clone()), record);
        }
        for key in &changes.deletes {
            writer.delete(key.clone());
        }
        Ok(())
    }

    fn check_record_size(&self, name: &str, found: usize) -> Result<(), WeightError> {
        // Half of a segment leaves room for what is committed with it.
        let limit_bytes = self.segment_bytes() / 2;
        if found as u64 > limit_bytes {
            return Err(WeightError::TooLarge {
                what: format!("the manifest of model {name:?}"),
                found_bytes: found as u64,
                limit_bytes,
            });
        }
        Ok(())
    }

    /// Makes committed changes visible.
    fn publish(
        &self,
        changes: Changes,
        labels: Vec<NumberedLabel>,
        model: Option<NewModel>,
        present: &[WeightHash],
    ) {
        let mut catalog = self.catalog();
        for key in changes.deletes.iter().filter_map(|key| Key::parse(key)) {
            match key {
                Key::Object(hash, _) => catalog.remove_object(&hash),
                Key::Model(name) => catalog.remove_model(&name),
                Key::Delta(id) => catalog.remove_delta(&id),
                Key::BaseLink { base, hash } => catalog.remove_link(&base, &hash),
                _ => {}
            }
        }
        for object in changes.objects {
            catalog.insert(Key::Object(object.hash, object.record.alias));
            if let Some(sketch) = &object.sketch {
                catalog.insert(Key::Sketch(sketch.place(), object.hash));
            }
            if let Some(link) = object.base_link() {
                catalog.insert(link);
            }
            if let Some(hint) = object.hint {
                catalog.insert(Key::Hint(hint, object.hash));
            }
            catalog.pin(&object.hash);
        }
        for rewrite in changes.rewrites {
            if let Some(sketch) = &rewrite.sketch {
                catalog.insert(Key::Sketch(sketch.place(), rewrite.hash));
            }
            if let (_, Some(link)) = rewrite.links() {
                catalog.insert(link);
            }
        }
        for hash in present {
            catalog.pin(hash);
        }
        for label in labels {
            catalog.insert(label.key());
        }
        for (id, record) in changes.deltas {
            catalog.insert(Key::Delta(id));
            if let Some(references) = catalog.references_mut() {
                references.add_delta(record.reference_hash(), id);
            }
        }
        if let Some(new) = model {
            let roots: BTreeSet<_> = new.manifest.roots().copied().collect();
            let name: Arc<str> = new.name.as_str().into();
            if let Some(references) = catalog.references_mut() {
                references.remove_model(&name);
                references.add_model(&name, &roots);
            }
            catalog.insert(Key::Model(new.name));
        }
    }
}

enum InTheWay {
    Nothing,
    /// The same content, perhaps under other file names.
    Same(Box<Manifest>),
    Other(BTreeSet<WeightHash>),
}

/// A use with its place in the order of the tensor's uses.
struct NumberedLabel {
    hash: WeightHash,
    number: u64,
    digest: [u8; 16],
    record: Vec<u8>,
}

impl NumberedLabel {
    fn key(&self) -> Key {
        Key::Label {
            hash: self.hash,
            number: self.number,
            digest: self.digest,
        }
    }
}

/// The next reservation of body numbers, if the changes need one.
fn reservation(ledger: &Ledger, changes: &Changes) -> Option<BodyId> {
    let body_max = changes.body_max();
    (body_max >= ledger.reserved).then(|| BodyId(body_max.0.saturating_add(BODIES_PER_RESERVATION)))
}

#[derive(Default)]
struct Writer {
    batch: WriteBatch,
    stored_bytes: u64,
}

impl Writer {
    fn put(&mut self, key: &Key, value: impl Into<BufferMut>) {
        let value = value.into();
        self.stored_bytes += value.len() as u64;
        self.batch = std::mem::take(&mut self.batch).put(key.encode(), value);
    }

    fn put_chunk(&mut self, body: BodyId, index: u32, encoded: CheckedValue) {
        self.stored_bytes += encoded.len() as u64;
        let key = Key::Chunk(body, index).encode();
        self.batch = std::mem::take(&mut self.batch).put_checked(key, encoded);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.batch = std::mem::take(&mut self.batch).delete(key);
    }
}

#[cfg(test)]
mod tests;
