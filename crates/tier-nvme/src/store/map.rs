//! Values without a copy: maps of segments that are not written any more.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError};

use core_view::{Access, BufferOwner, TensorStorage};

use super::index::Slot;
use super::log::Segment;
use super::pin::Pin;
use super::read::check;
use super::{NvmeError, Shared};
use crate::VolumeLock;
use crate::format::Encoding;

/// How the bytes of a [`MappedValue`] got into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapOrigin {
    /// They are a map of the segment's file (or what the volume has in place of one).
    Mapped,
    /// They were read into memory of their own, for this reason.
    Copied {
        /// Why there is no map.
        reason: &'static str,
    },
}

/// The checked bytes of a value, and how they were had.
///
/// While any view of a map lives, the segment under it is neither removed nor written again, and the
/// directory stays locked, also after the store was closed.
#[derive(Debug, Clone)]
pub struct MappedValue {
    storage: TensorStorage,
    origin: MapOrigin,
}

impl MappedValue {
    /// How the bytes got into memory.
    pub fn origin(&self) -> MapOrigin {
        self.origin
    }

    /// The bytes, to share; views of them keep the map.
    pub fn into_storage(self) -> TensorStorage {
        self.storage
    }
}

impl Deref for MappedValue {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.storage.as_slice()
    }
}

/// A view of a segment together with the pin that keeps its bytes as they are.
struct PinnedMap {
    _map: TensorStorage,
    _pin: Pin,
}

// SAFETY: the view inside keeps its bytes in place, and while the pin lives nobody writes the segment.
unsafe impl BufferOwner for PinnedMap {
    fn access(&self) -> Access {
        Access::ReadOnly
    }
}

impl Shared {
    pub(super) fn map_value(&self, key: &[u8]) -> Result<Option<MappedValue>, NvmeError> {
        let mut reason = "another change of the key was under way";
        if let Some(slot) = self.index.get(key) {
            match self.map_slot(key, &slot) {
                Ok(storage) => {
                    self.counters.mapped(storage.len());
                    let origin = MapOrigin::Mapped;
                    return Ok(Some(MappedValue { storage, origin }));
                }
                Err(Unmapped::Because(why)) => reason = why,
                // The value may have moved meanwhile: a read looks again, and tells what is wrong.
                Err(Unmapped::Failed(error)) if self.index.get(key) == Some(slot) => {
                    return Err(error);
                }
                Err(Unmapped::Failed(_)) => {}
            }
        }
        let storage = self.read_shared(key)?;
        Ok(storage.map(|storage| MappedValue {
            storage,
            origin: MapOrigin::Copied { reason },
        }))
    }

    fn map_slot(&self, key: &[u8], slot: &Slot) -> Result<TensorStorage, Unmapped> {
        if slot.encoding != Encoding::Raw {
            return Err(Unmapped::Because("the value is compressed"));
        }
        if slot.stored_bytes == 0 {
            return Err(Unmapped::Because("the value is empty"));
        }
        let segment = self.segments.get(slot.segment_id);
        let segment = segment.ok_or(Unmapped::Because("the segment is missing"))?;
        if self.read_only.is_none() && !self.segments.is_sealed(slot.segment_id) {
            return Err(Unmapped::Because("the segment is still being written"));
        }
        let map = self.map_pinned(&segment, slot)?;
        check(key, slot, map.as_slice()).map_err(Unmapped::Failed)?;
        Ok(map)
    }

    /// Maps a value's bytes, whatever they are, with a pin on the segment.
    fn map_pinned(&self, segment: &Arc<Segment>, slot: &Slot) -> Result<TensorStorage, Unmapped> {
        let file = segment.file.as_ref();
        let file = file.ok_or(Unmapped::Because("the segment is missing"))?;
        let lock = self.lock_handle();
        let lock = lock.ok_or(Unmapped::Because(
            "the directory is not locked: somebody else may be writing",
        ))?;
        let pin = Pin::new(segment, lock).ok_or(Unmapped::Because("the segment was given up"))?;
        let len = usize::try_from(slot.stored_bytes)
            .map_err(|_| Unmapped::Because("the value is too long for this machine"))?;
        // SAFETY: batches are written once, before they are in the index; the pin keeps the segment from
        // being used again, here and, by the directory's lock, elsewhere. The view goes with the pin.
        let map = unsafe { file.map(slot.offset_bytes, len) }.map_err(Unmapped::Failed)?;
        let pointer = NonNull::new(map.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
        let len = map.len();
        let owner = Arc::new(PinnedMap {
            _map: map,
            _pin: pin,
        });
        // SAFETY: the owner holds the view whose bytes these are.
        Ok(unsafe { TensorStorage::from_owner(pointer, len, owner) })
    }

    /// The directory's lock, to hold it longer than the store.
    fn lock_handle(&self) -> Option<Arc<dyn VolumeLock>> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.clone()
    }
}

/// Why there is no map.
enum Unmapped {
    /// A copy will do.
    Because(&'static str),
    /// The bytes can't be had, or are wrong.
    Failed(NvmeError),
}
