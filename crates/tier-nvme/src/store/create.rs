//! Making a store, and knowing one.

use std::sync::atomic::Ordering;

use super::checkpoint::{CHECKPOINT_NAMES, UNFINISHED_SUFFIX, write_new_file};
use super::log::aligned_buffer;
use super::{NvmeError, Shared, StorageConfig};
use crate::format::{
    BlockWriter, CheckpointHeader, FormatError, PAGE_BYTES, StoreId, Superblock, VERSION,
    segment_id,
};
use crate::{FileName, Volume};

pub(super) const SUPERBLOCK_NAME: &str = "STORE";

/// Makes an empty store: two checkpoints without entries, then the superblock.
pub(super) fn create(volume: &dyn Volume, config: &StorageConfig) -> Result<(), NvmeError> {
    let store_id = StoreId(volume.unique_id());
    let segment_bytes = config.segment_bytes_with(volume.available_bytes());
    for (generation, name) in (1_u64..).zip(CHECKPOINT_NAMES) {
        let file = BlockWriter::new(store_id, generation).finish(|body_bytes| CheckpointHeader {
            clean: true,
            store_id,
            generation,
            sequence: 0,
            checksum: 0,
            segment_count: 0,
            log_segment_id: 0,
            log_offset_bytes: PAGE_BYTES as u64,
            entry_count: 0,
            body_bytes,
            synced_sequence: 0,
        });
        write_new_file(volume, &FileName::new(name)?, &file)?;
    }
    let page = Superblock::new(store_id, segment_bytes).encode();
    write_new_file(volume, &FileName::new(SUPERBLOCK_NAME)?, &page.repeat(2))
}

impl Shared {
    /// Names an incompatible feature in the superblock before it is used for the first time.
    ///
    /// # Errors
    /// [`NvmeError::NoSpace`], with nothing changed; the device's failure, which ends writing.
    pub(super) fn require_feature(&self, feature: u64) -> Result<(), NvmeError> {
        let features = self.features.load(Ordering::Acquire);
        if features & feature == feature {
            return Ok(());
        }
        let mut superblock = Superblock::new(self.store_id, self.segment_bytes);
        superblock.incompatible = features | feature;
        let name = FileName::new(SUPERBLOCK_NAME)?;
        let written = write_new_file(&*self.volume, &name, &superblock.encode().repeat(2));
        written.inspect_err(|error| {
            if !matches!(error, NvmeError::NoSpace { .. }) {
                self.poison(error);
            }
        })?;
        self.features
            .store(superblock.incompatible, Ordering::Release);
        Ok(())
    }
}

/// Whether a file of this name was left by a store that did not finish it.
pub(super) fn is_unfinished(name: &FileName) -> bool {
    let target = name.as_str().strip_suffix(UNFINISHED_SUFFIX);
    target.is_some_and(|name| name == SUPERBLOCK_NAME || CHECKPOINT_NAMES.contains(&name))
}

/// Whether the volume holds a store.
///
/// # Errors
/// [`NvmeError::NotAStore`] if it holds something else.
pub(super) fn is_store(volume: &dyn Volume) -> Result<bool, NvmeError> {
    let names = volume.list()?;
    if names.iter().any(|name| name.as_str() == SUPERBLOCK_NAME) {
        return Ok(true);
    }
    // Segments are made only after the superblock: without it, somebody took it away.
    let is_foreign = |name: &&FileName| {
        let is_ours = CHECKPOINT_NAMES.contains(&name.as_str()) || is_unfinished(name);
        !is_ours
    };
    match names.iter().find(is_foreign) {
        None => Ok(false),
        Some(name) => {
            let reason = if segment_id(name).is_some() {
                format!("it holds {name} but no {SUPERBLOCK_NAME}; restore that file")
            } else {
                format!("it holds {name}; choose an empty or a new directory")
            };
            Err(NvmeError::NotAStore {
                path: volume.report().location,
                reason,
            })
        }
    }
}

/// The superblock, and why each copy that is damaged can't be used.
pub(super) fn read_superblock(
    volume: &dyn Volume,
) -> Result<(Superblock, Vec<(usize, FormatError)>), NvmeError> {
    let file = volume.open(&FileName::new(SUPERBLOCK_NAME)?)?;
    let mut found = None;
    let mut damaged = Vec::new();
    let mut unreadable = None;
    for copy in 0..2_usize {
        let page = file.read_blocking((copy * PAGE_BYTES) as u64, aligned_buffer(PAGE_BYTES)?);
        let decoded = match page {
            Ok(page) => Superblock::decode(&page),
            Err(failure) => {
                unreadable = Some(NvmeError::from(failure));
                Err(FormatError::Damaged("it can't be read"))
            }
        };
        match decoded {
            Ok(superblock) => found = found.or(Some(superblock)),
            Err(error) => damaged.push((copy, error)),
        }
    }
    let path = volume.report().location;
    if let Some(superblock) = found {
        return Ok((superblock, damaged));
    }
    if let Some(error) = unreadable {
        return Err(error);
    }
    for (_, error) in &damaged {
        if let FormatError::NewerVersion(found) = error {
            let structure = "superblock";
            return Err(NvmeError::NewerVersion {
                path,
                structure,
                found: *found,
                supported: VERSION,
            });
        }
    }
    Err(NvmeError::Corrupt {
        structure: "superblock",
        location: format!("both copies in {SUPERBLOCK_NAME} of {path}"),
        reason: damaged
            .first()
            .map(|(_, error)| error.reason())
            .unwrap_or_default(),
    })
}
