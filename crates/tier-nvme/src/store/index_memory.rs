//! What the index takes of the store's memory.

use std::sync::{Mutex, PoisonError};

use super::batch::Draft;
use super::bulk::KeyGrowth;
use super::index::KEY_OVERHEAD_BYTES;
use super::memory::{MemoryKind, Reservation};
use super::{NvmeError, Shared};
use crate::format::IndexRecord;

/// The memory that the index is charged with.
#[derive(Debug)]
pub(super) struct IndexMemory {
    held: Mutex<Reservation>,
}

impl IndexMemory {
    pub(super) fn new(held: Reservation) -> Self {
        Self {
            held: Mutex::new(held),
        }
    }

    /// Holds at least `bytes`, while nobody else takes any.
    fn open_to(&self, bytes: u64) -> Result<(), NvmeError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.open_to(bytes)
    }

    /// Takes over what a batch brought, and gives back what is beyond `bytes`.
    fn settle(&self, brought: Option<Reservation>, bytes: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(brought) = brought {
            held.absorb(brought);
        }
        held.set(bytes);
    }
}

/// Most bytes that a key takes in the index.
pub(super) fn key_bytes_max(key_bytes: usize) -> u64 {
    KEY_OVERHEAD_BYTES + IndexRecord::encoded_bytes(key_bytes)
}

impl Shared {
    /// Takes memory for the keys that a draft may add.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`].
    pub(super) fn reserve_index(&self, draft: &mut Draft) -> Result<(), NvmeError> {
        let budget = self.buffers.budget();
        let bytes: u64 = draft.put_keys().map(|key| key_bytes_max(key.len())).sum();
        if bytes == 0 {
            return Ok(());
        }
        let reservation = budget.try_reserve(MemoryKind::Index, bytes).or_else(|_| {
            // Keys that are there take nothing more; looking is for when it matters.
            let new_keys = draft.put_keys().filter(|key| self.index.get(key).is_none());
            let bytes = new_keys.map(|key| key_bytes_max(key.len())).sum();
            let len_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            self.with_room(len_bytes, || budget.try_reserve(MemoryKind::Index, bytes))
        })?;
        draft.hold(reservation);
        Ok(())
    }

    /// Charges the index with what it has, once a batch that brought memory is in it.
    pub(super) fn settle_index(&self, brought: Option<Reservation>) {
        self.index_memory.settle(brought, self.index.memory_bytes());
    }

    /// Takes memory for so many keys before they are in the index of a store that is being opened. It may be more than
    /// what is there in the end may take.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`].
    pub(super) fn make_room_in_index(&self, coming: KeyGrowth) -> Result<(), NvmeError> {
        let bytes = coming.keys.saturating_mul(KEY_OVERHEAD_BYTES);
        self.index_memory
            .open_to(bytes.saturating_add(coming.record_bytes))
    }

    /// Charges the index of a store that was opened.
    ///
    /// # Errors
    /// [`NvmeError::MemoryLimit`] if it leaves too little for anything else.
    pub(super) fn charge_opened_index(&self) -> Result<(), NvmeError> {
        let bytes = self.index.memory_bytes();
        let budget = self.buffers.budget();
        if bytes > budget.share_bytes(MemoryKind::Index) {
            return Err(budget.refusal(MemoryKind::Index, bytes));
        }
        self.settle_index(None);
        Ok(())
    }
}
