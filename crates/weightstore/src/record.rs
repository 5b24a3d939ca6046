//! The records of the native store, as the format document gives them.
//!
//! Every parser takes hostile bytes: it answers with a [`RecordError`], allocates no more than a small
//! multiple of the bytes that it was given, and accepts exactly one encoding of each record.

mod body;
mod cursor;
mod delta;
mod key;
mod label;
mod manifest;
mod object;
mod staging;
mod system;
#[cfg(test)]
mod tests;

pub(crate) use body::{Body, ChunkEntry, INLINE_LEN_MAX, Place};
pub(crate) use delta::DeltaRecord;
pub(crate) use key::{BodyId, Key};
pub(crate) use label::LabelRecord;
pub(crate) use manifest::{FileEntry, Manifest};
pub(crate) use object::{BaseLink, DEPTH_MAX, ObjectRecord};
pub(crate) use staging::{JournalRecord, StagingRecord};
pub(crate) use system::{BASE_LINK_RECORD, BodyReservation, HINT_RECORD, StoreRecord};

use crate::WeightError;

/// Why bytes are not the record that they should be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecordError {
    /// They are damaged.
    Damaged(String),
    /// A newer version wrote them.
    Newer(String),
}

impl RecordError {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }

    /// As the error of the store, about the structure of that name.
    pub(crate) fn about(self, structure: &'static str, name: impl Into<String>) -> WeightError {
        match self {
            Self::Damaged(reason) => WeightError::corrupt(structure, name, reason),
            Self::Newer(reason) => WeightError::Newer {
                structure,
                name: name.into(),
                reason,
            },
        }
    }
}
