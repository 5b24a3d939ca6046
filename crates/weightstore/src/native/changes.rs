//! What is to be committed together.

use std::collections::BTreeSet;

use tier_nvme::CheckedValue;

use super::base::keeps_sketch;
use crate::metadata::Label;
use crate::record::{Body, BodyId, DeltaRecord, Key, Manifest, ObjectRecord, Place};
use crate::{Sketch, WeightHash};

/// A tensor whose header is to be committed.
#[derive(Debug)]
pub(super) struct NewObject {
    pub(super) hash: WeightHash,
    pub(super) record: ObjectRecord,
    pub(super) hint: Option<[u8; 16]>,
    pub(super) sketch: Option<Sketch>,
}

impl NewObject {
    /// The link to what it is stored against.
    pub(super) fn base_link(&self) -> Option<Key> {
        self.record.base.map(|base| Key::BaseLink {
            base: base.hash,
            hash: self.hash,
        })
    }
}

/// A tensor that is to be stored otherwise: its content stays.
#[derive(Debug)]
pub(super) struct Rewrite {
    pub(super) hash: WeightHash,
    /// The header that has to be there still, else nothing changes.
    pub(super) before: ObjectRecord,
    pub(super) now: ObjectRecord,
    /// Its sketch, if it is to have one and has none yet.
    pub(super) sketch: Option<Sketch>,
}

impl Rewrite {
    pub(super) fn links(&self) -> (Option<Key>, Option<Key>) {
        let link = |record: &ObjectRecord| {
            record.base.map(|base| Key::BaseLink {
                base: base.hash,
                hash: self.hash,
            })
        };
        (link(&self.before), link(&self.now))
    }
}

/// A model whose manifest is to be committed.
#[derive(Debug)]
pub(super) struct NewModel {
    pub(super) name: String,
    pub(super) manifest: Manifest,
    /// Whether a model of that name with other content gives way.
    pub(super) replace: bool,
}

/// Changes that happen together or not at all.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) chunks: Vec<(BodyId, u32, CheckedValue)>,
    pub(super) objects: Vec<NewObject>,
    pub(super) rewrites: Vec<Rewrite>,
    pub(super) labels: Vec<(WeightHash, Label)>,
    pub(super) deltas: Vec<(WeightHash, DeltaRecord)>,
    /// Records of transfers.
    pub(super) records: Vec<(Key, Vec<u8>)>,
    pub(super) model: Option<NewModel>,
    pub(super) deletes: BTreeSet<Vec<u8>>,
    /// The highest body number that a record names.
    named_body: BodyId,
    payload_bytes: usize,
    entries: usize,
}

/// Entries after which changes are committed, so that their keys stay a small part of the batch.
const ENTRIES_MAX: usize = 40_000;

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0 && self.model.is_none() && self.deletes.is_empty()
    }

    /// Whether they should be committed before `next_bytes` more are added.
    pub(super) fn is_full(&self, next_bytes: usize, batch_bytes: usize) -> bool {
        self.entries > 0
            && (self.payload_bytes + next_bytes > batch_bytes || self.entries >= ENTRIES_MAX)
    }

    pub(super) fn add_chunk(&mut self, body: BodyId, index: u32, encoded: CheckedValue) {
        self.payload_bytes += padded(encoded.len());
        self.entries += 1;
        self.chunks.push((body, index, encoded));
    }

    pub(super) fn add_object(&mut self, mut object: NewObject) {
        object.sketch = object.sketch.filter(|_| keeps_sketch(&object.record.body));
        self.payload_bytes += header_bytes(&object.record.body, &object.record.shape);
        self.payload_bytes += object.sketch.as_ref().map_or(0, |_| Sketch::LEN_BYTES);
        self.entries += 4;
        self.objects.push(object);
    }

    pub(super) fn add_rewrite(&mut self, rewrite: Rewrite) {
        self.payload_bytes += header_bytes(&rewrite.now.body, &rewrite.now.shape);
        self.payload_bytes += rewrite.sketch.as_ref().map_or(0, |_| Sketch::LEN_BYTES);
        self.entries += 4;
        self.rewrites.push(rewrite);
    }

    pub(super) fn add_label(&mut self, hash: WeightHash, label: Label) {
        self.payload_bytes += 64 + label.name.len() + label.compression_info.len();
        self.entries += 1;
        self.labels.push((hash, label));
    }

    pub(super) fn add_delta(&mut self, id: WeightHash, record: DeltaRecord) {
        self.payload_bytes += header_bytes(&record.body, &[]) + record.fields_bytes();
        self.entries += 1;
        self.deltas.push((id, record));
    }

    /// Has the number of a body reserved whose chunks come later.
    pub(super) fn need_body(&mut self, body: BodyId) {
        self.named_body = self.named_body.max(body);
    }

    /// Takes a record in that names a body, whose chunks may come later.
    pub(super) fn add_record(&mut self, key: Key, record: Vec<u8>, body: BodyId) {
        self.payload_bytes += padded(record.len());
        self.entries += 1;
        self.need_body(body);
        self.records.push((key, record));
    }

    /// Takes the chunks out, to be committed before the rest.
    pub(super) fn take_chunks(&mut self) -> Vec<(BodyId, u32, CheckedValue)> {
        let chunks = std::mem::take(&mut self.chunks);
        for (.., encoded) in &chunks {
            self.payload_bytes = self.payload_bytes.saturating_sub(padded(encoded.len()));
        }
        self.entries = self.entries.saturating_sub(chunks.len());
        chunks
    }

    /// Takes in what is to be committed with these, after them.
    pub(super) fn append(&mut self, other: Self) {
        debug_assert!(self.model.is_none() && other.model.is_none());
        self.chunks.extend(other.chunks);
        self.objects.extend(other.objects);
        self.rewrites.extend(other.rewrites);
        self.labels.extend(other.labels);
        self.deltas.extend(other.deltas);
        self.records.extend(other.records);
        self.deletes.extend(other.deletes);
        self.named_body = self.named_body.max(other.named_body);
        self.payload_bytes += other.payload_bytes;
        self.entries += other.entries;
    }

    /// Whether others may be committed together with these.
    pub(super) fn has_room_for(&self, other: &Self, batch_bytes: usize) -> bool {
        let bytes = self.payload_bytes + other.payload_bytes;
        let entries = self.entries + other.entries;
        self.is_empty() || (bytes <= batch_bytes && entries <= ENTRIES_MAX)
    }

    /// Deletes the chunks of a body, those that wait in these changes and those committed before.
    pub(super) fn drop_body(&mut self, body: BodyId, count: u32) {
        self.chunks.retain(|(chunk_body, ..)| *chunk_body != body);
        for index in 0..count {
            self.deletes.insert(Key::Chunk(body, index).encode());
        }
    }

    /// The highest body number that they use.
    pub(super) fn body_max(&self) -> BodyId {
        let numbers = self.chunks.iter().map(|(body, ..)| *body);
        numbers.max().unwrap_or_default().max(self.named_body)
    }
}

/// About what the header of a tensor takes.
pub(super) fn header_bytes(body: &Body, shape: &[u64]) -> usize {
    let inline_bytes = match &body.place {
        Place::Inline(bytes) => bytes.len(),
        Place::Chunks(_) => 0,
    };
    padded(256 + 40 * body.chunks.len() + inline_bytes + 8 * shape.len())
}

/// Bytes that a value of that length takes: from a page on, whole pages.
fn padded(len: usize) -> usize {
    const PAGE_LEN: usize = 4096;
    if len < PAGE_LEN {
        len.next_multiple_of(8)
    } else {
        len.next_multiple_of(PAGE_LEN)
    }
}
