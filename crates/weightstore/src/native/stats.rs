//! How much the store holds, and what it saves.

use std::collections::BTreeMap;

use super::NativeStore;
use super::core::Core;
use crate::metadata::ratio;
use crate::record::{Body, Key, ObjectRecord, Place};
use crate::{ChunkEncoding, WeightError, WeightHash, parallel};

/// What a store holds and what it takes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Number of models.
    pub models: u64,
    /// Number of distinct tensors.
    pub tensors: u64,
    /// Number of deltas that were stored as such.
    pub deltas: u64,
    /// Bytes that everything would take as it was given: the files of all models, and each single
    /// weight once for each of its uses.
    pub logical_bytes: u64,
    /// Bytes of all records in the store.
    pub stored_bytes: u64,
    /// `stored_bytes / logical_bytes`; 1 for an empty store.
    pub ratio: f64,
    /// What was saved, by reason.
    pub saved: Saved,
    /// The chunks of all tensors by how they are encoded.
    pub encodings: Vec<EncodingStats>,
    /// Tensors by how many bases are below them at most; as long as the deepest needs.
    pub depths: Vec<u64>,
    /// Tensors that no model and no use names: bases of others, or not yet collected.
    pub unnamed_tensors: u64,
    /// Encoded bytes of those.
    pub unnamed_bytes: u64,
}

/// Bytes that tensors with a name do not take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Because the same tensor is there already.
    pub dedup_bytes: u64,
    /// Because it is stored as a difference; what the codec would have saved is in it.
    pub delta_bytes: u64,
    /// Because it is encoded.
    pub codec_bytes: u64,
}

/// Chunks of one encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodingStats {
    /// The encoding.
    pub encoding: ChunkEncoding,
    /// How many chunks.
    pub chunks: u64,
    /// Their bytes before encoding.
    pub logical_bytes: u64,
    /// Their bytes after it.
    pub stored_bytes: u64,
}

/// The sizes of one kind of content.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    pub(super) count: u64,
    pub(super) logical_bytes: u64,
    pub(super) stored_bytes: u64,
}

impl NativeStore {
    /// How much the store holds; manifests and headers are read for it, content is not.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`] for a model or a tensor whose header can't be read;
    /// [`WeightError::Storage`].
    pub fn stats(&self) -> Result<StoreStats, WeightError> {
        self.enter()?.stats()
    }

    /// Bytes that a tensor takes in the store, its header included; `None` if it is absent.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`] if its header can't be read; [`WeightError::Storage`].
    pub fn stored_bytes_of(&self, hash: &WeightHash) -> Result<Option<u64>, WeightError> {
        let core = self.enter()?;
        let record = core.object(hash)?;
        Ok(record.map(|record| {
            let header_bytes = core.record_bytes(&Key::Object(*hash, record.alias));
            sizes_of(&record.body, header_bytes).stored_bytes
        }))
    }
}

impl Core {
    fn stats(&self) -> Result<StoreStats, WeightError> {
        let (models, deltas, mut names) = {
            let catalog = self.catalog();
            let uses = |hash: &WeightHash| {
                let uses = catalog.object(hash).map_or(0, |entry| entry.uses.len());
                (*hash, uses as u64)
            };
            let names: BTreeMap<WeightHash, u64> = catalog.hashes().map(uses).collect();
            let deltas = catalog.deltas().len() as u64;
            (catalog.models().clone(), deltas, names)
        };
        let single: BTreeMap<WeightHash, u64> =
            names.iter().map(|(hash, uses)| (*hash, *uses)).collect();
        let mut logical_bytes = 0;
        for name in &models {
            let manifest = match self.manifest(name) {
                Err(WeightError::ModelNotFound { .. }) => continue,
                manifest => manifest?,
            };
            let lens = manifest.files.iter().map(|file| file.len_bytes);
            logical_bytes += lens.sum::<u64>();
            for root in manifest.roots() {
                // A model that came meanwhile is counted, its new tensors are not.
                if let Some(count) = names.get_mut(root) {
                    *count += 1;
                }
            }
        }
        let mut tally = Tally::default();
        let hashes: Vec<WeightHash> = names.keys().copied().collect();
        for group in hashes.chunks(HEADERS_AT_ONCE) {
            let headers = parallel::map(self.fetch_threads(), group.to_vec(), |hash| {
                self.object(&hash).map(|record| (hash, record))
            });
            for header in headers {
                let (hash, Some(record)) = header? else {
                    continue;
                };
                let alone = single.get(&hash).copied().unwrap_or(0);
                logical_bytes += alone * record.body.len_bytes;
                tally.add(&record, names.get(&hash).copied().unwrap_or(0));
            }
        }
        let stored_bytes = self.blobs.stats().live_bytes;
        Ok(StoreStats {
            models: models.len() as u64,
            tensors: tally.depths.iter().sum(),
            deltas,
            logical_bytes,
            stored_bytes,
            ratio: ratio(stored_bytes, logical_bytes),
            saved: tally.saved,
            encodings: tally.encodings.into_values().collect(),
            depths: tally.depths,
            unnamed_tensors: tally.unnamed_tensors,
            unnamed_bytes: tally.unnamed_bytes,
        })
    }

    /// The sizes of all tensors.
    pub(super) fn tensor_sizes(&self) -> Result<Sizes, WeightError> {
        let hashes: Vec<WeightHash> = self.catalog().hashes().copied().collect();
        let sizes = parallel::map(self.fetch_threads(), hashes, |hash| {
            let Some(record) = self.object(&hash)? else {
                return Ok(Sizes::default());
            };
            let header_bytes = self.record_bytes(&Key::Object(hash, record.alias));
            Ok(sizes_of(&record.body, header_bytes))
        });
        sum(sizes)
    }

    /// The sizes of all deltas.
    pub(super) fn delta_sizes(&self) -> Result<Sizes, WeightError> {
        let ids: Vec<WeightHash> = self.catalog().deltas().iter().copied().collect();
        let sizes = parallel::map(self.fetch_threads(), ids, |id| {
            let Some(record) = self.delta_record(&id)? else {
                return Ok(Sizes::default());
            };
            Ok(sizes_of(&record.body, self.record_bytes(&Key::Delta(id))))
        });
        sum(sizes)
    }

    fn record_bytes(&self, key: &Key) -> u64 {
        self.blobs.len_of(key.encode()).unwrap_or(0)
    }
}

/// Headers that are read at once.
const HEADERS_AT_ONCE: usize = 1024;

/// What the headers seen so far add up to.
#[derive(Default)]
struct Tally {
    saved: Saved,
    encodings: BTreeMap<u8, EncodingStats>,
    depths: Vec<u64>,
    unnamed_tensors: u64,
    unnamed_bytes: u64,
}

impl Tally {
    /// Takes in a tensor that goes by so many names.
    fn add(&mut self, record: &ObjectRecord, names: u64) {
        let depth = usize::from(record.depth());
        if self.depths.len() <= depth {
            self.depths.resize(depth + 1, 0);
        }
        if let Some(count) = self.depths.get_mut(depth) {
            *count += 1;
        }
        if names == 0 {
            self.unnamed_tensors += 1;
            self.unnamed_bytes += record.body.encoded_bytes();
        }
        self.saved.dedup_bytes += names.saturating_sub(1) * record.body.len_bytes;
        for (index, chunk) in record.body.chunks.iter().enumerate() {
            let logical_bytes = record.body.chunk_len(index) as u64;
            let stored_bytes = u64::from(chunk.encoded_len);
            let saved = logical_bytes.saturating_sub(stored_bytes);
            match chunk.codec {
                _ if names == 0 => {}
                ChunkEncoding::Difference => self.saved.delta_bytes += saved,
                _ => self.saved.codec_bytes += saved,
            }
            let new = EncodingStats {
                encoding: chunk.codec,
                chunks: 0,
                logical_bytes: 0,
                stored_bytes: 0,
            };
            let stats = self.encodings.entry(chunk.codec.id()).or_insert(new);
            stats.chunks += 1;
            stats.logical_bytes += logical_bytes;
            stats.stored_bytes += stored_bytes;
        }
    }
}

fn sizes_of(body: &Body, header_bytes: u64) -> Sizes {
    let chunk_bytes = match body.place {
        Place::Inline(_) => 0,
        Place::Chunks(_) => body.encoded_bytes(),
    };
    Sizes {
        count: 1,
        logical_bytes: body.len_bytes,
        stored_bytes: header_bytes + chunk_bytes,
    }
}

fn sum(sizes: Vec<Result<Sizes, WeightError>>) -> Result<Sizes, WeightError> {
    let mut total = Sizes::default();
    for sizes in sizes {
        let sizes = sizes?;
        total.count += sizes.count;
        total.logical_bytes += sizes.logical_bytes;
        total.stored_bytes += sizes.stored_bytes;
    }
    Ok(total)
}
