//! The parts that every operation of the native store works on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use core_view::BufferMut;
use tier_nvme::{NvmeError, NvmeStore};

use super::buffers::Buffers;
use super::catalog::Catalog;
use super::config::NativeConfig;
use super::model_table::ModelTables;
use super::rooms::Rooms;
use crate::record::{BodyId, BodyReservation, Key, StoreRecord};
use crate::{Codec, WeightError, WeightHash};

/// The blob store and what is known of its content.
pub(super) struct Core {
    pub(super) blobs: NvmeStore,
    pub(super) config: NativeConfig,
    pub(super) buffers: Buffers,
    pub(super) rooms: Rooms,
    catalog: Mutex<Catalog>,
    /// Held while changes are decided, committed and published; taken before the catalog's lock.
    commit: Mutex<Ledger>,
    /// What was parsed of models.
    pub(super) model_tables: Mutex<ModelTables>,
    /// Held while a transfer begins, is dropped or becomes a tensor.
    pub(super) transfers: Mutex<()>,
    next_body: AtomicU64,
    /// Chunks of bodies below this need no other record before them: the store record and the reservation are durable.
    /// It rises while the commit lock is held and is read without it, so that content waits for no commit.
    sendable: AtomicU64,
    /// How many running operations began when that was the next body number.
    running: Mutex<BTreeMap<BodyId, u64>>,
}

/// What the records of the store itself say.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The store record, if it is there.
    pub(super) format: Option<StoreRecord>,
    /// The first body number that is not reserved.
    pub(super) reserved: BodyId,
}

impl Core {
    pub(super) fn open(blobs: NvmeStore, config: NativeConfig) -> Result<Self, WeightError> {
        config.check()?;
        let format = match read(&blobs, &Key::Format)? {
            Some(record) => {
                let parsed = StoreRecord::parse(&record);
                Some(parsed.map_err(|error| error.about("store record", ""))?)
            }
            None if blobs.is_empty() => None,
            None => {
                return Err(WeightError::NotAWeightStore {
                    location: blobs.stats().volume.location,
                });
            }
        };
        let reserved = match read(&blobs, &Key::Bodies)? {
            Some(record) => BodyReservation::parse(&record)
                .map_err(|error| error.about("body reservation", ""))?,
            None => BodyId(1),
        };
        let sendable = format.map_or(0, |_| reserved.0);
        Ok(Self {
            catalog: Mutex::new(catalog_of(&blobs)),
            sendable: AtomicU64::new(sendable),
            commit: Mutex::new(Ledger { format, reserved }),
            model_tables: Mutex::default(),
            transfers: Mutex::default(),
            next_body: AtomicU64::new(reserved.0),
            running: Mutex::default(),
            buffers: Buffers::new()?,
            rooms: Rooms::default(),
            blobs,
            config,
        })
    }

    pub(super) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.commit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_body(&self) -> BodyId {
        BodyId(self.next_body.fetch_add(1, Ordering::SeqCst))
    }

    /// Whether chunks of a body may be written without a commit.
    pub(super) fn may_send(&self, body: BodyId) -> bool {
        body.0 < self.sendable.load(Ordering::Acquire)
    }

    /// Notes what a commit has made durable.
    pub(super) fn note_ledger(&self, ledger: &Ledger) {
        if ledger.format.is_some() {
            self.sendable.fetch_max(ledger.reserved.0, Ordering::AcqRel);
        }
    }

    /// Notes that an operation begins; the bodies that it writes have this number or a higher one.
    pub(super) fn begin(&self) -> BodyId {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let first = BodyId(self.next_body.load(Ordering::SeqCst));
        *running.entry(first).or_default() += 1;
        first
    }

    /// Notes that an operation ended; whether it was the last one.
    pub(super) fn end(&self, first: BodyId) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&first) {
            *count -= 1;
            if *count == 0 {
                running.remove(&first);
            }
        }
        running.is_empty()
    }

    /// The lowest body number that a running or coming operation may have chunks under without a header.
    pub(super) fn first_unfinished(&self) -> BodyId {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let next = BodyId(self.next_body.load(Ordering::SeqCst));
        running.keys().next().copied().unwrap_or(next)
    }

    /// The value under a key, checked by the blob store.
    pub(super) fn read(&self, key: &Key) -> Result<Option<BufferMut>, WeightError> {
        read(&self.blobs, key)
    }

    /// Bytes of a segment of the blob store, which a batch has to fit into.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.blobs.segment_bytes()
    }

    /// The most bytes that one batch may have.
    pub(super) fn batch_bytes(&self) -> usize {
        // Room for the header of the batch and one more value.
        let room = usize::try_from(self.segment_bytes() / 4 * 3).unwrap_or(usize::MAX);
        self.config.batch_bytes().min(room)
    }

    /// Whether what is nearly the same as something stored is looked for.
    pub(super) fn finds_bases(&self) -> bool {
        self.config.find_bases()
            && self.config.chain_depth_max() > 0
            && self.config.codec() != Codec::None
    }

    /// The threads that fetch: more than the cores, since they wait for the device too; one if there is to be
    /// one, so that what the store asks of its volume comes in an order that can be repeated.
    pub(super) fn fetch_threads(&self) -> usize {
        match self.config.threads() {
            1 => 1,
            threads => (2 * threads).max(4),
        }
    }
}

/// Whether a blob store is a weight store.
pub(super) fn holds_weights(blobs: &NvmeStore) -> Result<bool, WeightError> {
    let record = read(blobs, &Key::Format)?;
    Ok(record.is_some_and(|record| StoreRecord::is_one(&record)))
}

fn read(blobs: &NvmeStore, key: &Key) -> Result<Option<BufferMut>, WeightError> {
    blobs
        .read_direct(key.encode())
        .map_err(|error| match error {
            NvmeError::Corrupt {
                location, reason, ..
            } => {
                let (structure, name) = described(key);
                WeightError::corrupt(structure, name, format!("{reason} ({location})"))
            }
            other => WeightError::storage("read a record", other),
        })
}

/// What a key names, for messages.
pub(super) fn described(key: &Key) -> (&'static str, String) {
    let hash_of = |hash: &WeightHash| hash.to_string();
    match key {
        Key::Format => ("store record", String::new()),
        Key::Bodies => ("body reservation", String::new()),
        Key::Object(hash, _) => ("tensor", hash_of(hash)),
        Key::Chunk(body, index) => ("chunk", format!("{index} of body {}", body.0)),
        Key::Hint(_, hash) => ("hint", hash_of(hash)),
        Key::Label { hash, .. } => ("use of tensor", hash_of(hash)),
        Key::Delta(id) => ("delta", hash_of(id)),
        Key::Model(name) => ("model", format!("{name:?}")),
        Key::Sketch(_, hash) => ("sketch of tensor", hash_of(hash)),
        Key::Staging(hash) => ("staged tensor", hash_of(hash)),
        Key::Journal(name) => ("transfer", format!("{name:?}")),
        Key::BaseLink { hash, .. } => ("base link of tensor", hash_of(hash)),
    }
}

fn catalog_of(blobs: &NvmeStore) -> Catalog {
    let mut catalog = Catalog::default();
    // Objects first: what follows attaches to them.
    for prefix in [
        Key::OBJECTS,
        Key::HINTS,
        Key::LABELS,
        Key::SKETCHES,
        Key::BASE_LINKS,
        Key::DELTAS,
        Key::MODELS,
    ] {
        for key in blobs.keys_with_prefix(prefix) {
            if let Some(key) = Key::parse(&key) {
                catalog.insert(key);
            }
        }
    }
    catalog
}
