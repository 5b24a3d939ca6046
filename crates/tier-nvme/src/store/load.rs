//! Reading checkpoints, and filling the index from one.

use std::collections::BTreeMap;
use std::sync::Arc;

use core_view::contract::ErrorKind;

use super::checkpoint::CHECKPOINT_NAMES;
use super::log::Segment;
use super::read::read_stored;
use super::recovery::RecoveryReport;
use super::replay::Start;
use super::verify::Damage;
use super::{NvmeError, Shared};
use crate::format::{
    CheckpointHeader, FormatError, PAGE_BYTES, SegmentRecord, Superblock, VERSION,
};
use crate::{FileName, Volume};

/// The newest checkpoint that is whole.
pub(super) struct Checkpoint {
    pub(super) header: CheckpointHeader,
    pub(super) body: Vec<u8>,
    /// Which of the two files it is.
    pub(super) file_index: usize,
}

/// Reads both checkpoints and takes the newer one that is whole.
pub(super) fn newest_checkpoint(
    volume: &dyn Volume,
    superblock: &Superblock,
    report: &mut RecoveryReport,
) -> Result<Option<Checkpoint>, NvmeError> {
    let mut newest: Option<Checkpoint> = None;
    let mut unreadable = None;
    for (file_index, name) in CHECKPOINT_NAMES.into_iter().enumerate() {
        match read_checkpoint(volume, name, superblock) {
            Ok((header, body)) => {
                let generation = newest.as_ref().map_or(0, |newest| newest.header.generation);
                if newest.is_none() || header.generation > generation {
                    newest = Some(Checkpoint {
                        header,
                        body,
                        file_index,
                    });
                }
            }
            Err(error @ NvmeError::NewerVersion { .. }) => return Err(error),
            Err(error) => {
                let reason = damage_reason(&error);
                report
                    .damage
                    .push(Damage::structure("checkpoint", name.to_owned(), reason));
                if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) {
                    unreadable = Some(error);
                }
            }
        }
    }
    match (newest, unreadable) {
        // One that can't be read now is not one that is lost.
        (None, Some(error)) => Err(error),
        (newest, _) => Ok(newest),
    }
}

/// What is wrong, without what to do about it.
pub(super) fn damage_reason(error: &NvmeError) -> String {
    match error {
        NvmeError::Corrupt { reason, .. } => reason.clone(),
        error => error.to_string(),
    }
}

/// A checkpoint's header and body.
///
/// # Errors
/// [`NvmeError::Corrupt`] if it is damaged, [`NvmeError::FileNotFound`], [`NvmeError::NewerVersion`], or
/// the reason why it can't be read.
pub(super) fn read_checkpoint(
    volume: &dyn Volume,
    name: &str,
    superblock: &Superblock,
) -> Result<(CheckpointHeader, Vec<u8>), NvmeError> {
    let file = volume.open(&FileName::new(name)?)?;
    let failed = |error| match error {
        FormatError::NewerVersion(found) => NvmeError::NewerVersion {
            path: volume.report().location,
            structure: "checkpoint",
            found,
            supported: VERSION,
        },
        FormatError::Damaged(_) => NvmeError::Corrupt {
            structure: "checkpoint",
            location: name.to_owned(),
            reason: error.reason(),
        },
    };
    let too_short = || failed(FormatError::Damaged("the file is too short"));
    let len_bytes = file.len_bytes()?;
    if len_bytes < PAGE_BYTES as u64 {
        return Err(too_short());
    }
    let page = read_stored(&*file, 0, PAGE_BYTES as u64)?;
    let header = CheckpointHeader::decode(&page).map_err(failed)?;
    if header.store_id != superblock.store_id {
        let other = FormatError::Damaged("it belongs to another store");
        return Err(failed(other));
    }
    let file_bytes = header.file_bytes().filter(|&bytes| bytes <= len_bytes);
    let bytes = read_stored(&*file, 0, file_bytes.ok_or_else(too_short)?)?;
    let body = header.body(&bytes).map_err(failed)?;
    header
        .check(&body, superblock.segment_bytes)
        .map_err(failed)?;
    Ok((header, body))
}

/// Fills index and segments from a checkpoint and tells where the log goes on.
pub(super) fn load(
    shared: &Shared,
    checkpoint: &Checkpoint,
    on_disk: &BTreeMap<u64, FileName>,
) -> Result<Start, NvmeError> {
    let header = &checkpoint.header;
    let damaged = |error: FormatError| NvmeError::Corrupt {
        structure: "checkpoint",
        location: CHECKPOINT_NAMES[checkpoint.file_index].to_owned(),
        reason: error.reason(),
    };
    let mut body = checkpoint.body.as_slice();
    for _ in 0..header.segment_count {
        let record = SegmentRecord::decode(body).map_err(damaged)?;
        body = body.get(SegmentRecord::BYTES..).unwrap_or_default();
        let file = on_disk
            .get(&record.segment_id)
            .and_then(|name| shared.volume.open(name).ok());
        let segment = Segment::new(record.segment_id, file, record.used_bytes);
        shared.segments.insert(Arc::new(segment));
    }
    shared
        .fill_from_records(body, header.entry_count)
        .map_err(damaged)?;
    Ok(Start {
        segment_id: header.log_segment_id,
        offset_bytes: header.log_offset_bytes,
        sequence: header.sequence,
        checksum: header.checksum,
        synced_sequence: header.synced_sequence,
    })
}
