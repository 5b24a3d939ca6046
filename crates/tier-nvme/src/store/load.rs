//! Reading checkpoints, and filling the index from one.

use std::collections::BTreeMap;
use std::sync::Arc;

use core_view::contract::ErrorKind;

use super::body::{Body, Unread};
use super::bulk::KeyGrowth;
use super::checkpoint::CHECKPOINT_NAMES;
use super::log::{Segment, aligned_buffer};
use super::recovery::RecoveryReport;
use super::replay::Start;
use super::scan::ScanMemory;
use super::verify::Damage;
use super::{NvmeError, Shared};
use crate::format::{CheckpointHeader, FormatError, IndexRecord, PAGE_BYTES, Superblock, VERSION};
use crate::{FileName, Volume, VolumeFile};

/// A checkpoint whose body is not read yet.
pub(super) struct Checkpoint {
    pub(super) header: CheckpointHeader,
    pub(super) file: Arc<dyn VolumeFile>,
    /// Which of the two files it is.
    pub(super) file_index: usize,
}

/// The checkpoints with a right header, the newest first, and why another can't be read, if there is one that may
/// be right all the same.
#[derive(Default)]
pub(super) struct Checkpoints {
    pub(super) found: Vec<Checkpoint>,
    unreadable: Option<NvmeError>,
}

/// Reads the headers of both checkpoints.
pub(super) fn checkpoints(
    volume: &dyn Volume,
    superblock: &Superblock,
    report: &mut RecoveryReport,
) -> Result<Checkpoints, NvmeError> {
    let mut checkpoints = Checkpoints::default();
    for (file_index, name) in CHECKPOINT_NAMES.into_iter().enumerate() {
        match read_header(volume, name, superblock) {
            Ok((header, file)) => checkpoints.found.push(Checkpoint {
                header,
                file,
                file_index,
            }),
            Err(error @ NvmeError::NewerVersion { .. }) => return Err(error),
            Err(error) => checkpoints.pass_over(file_index, error, report),
        }
    }
    let newest_first = |checkpoint: &Checkpoint| std::cmp::Reverse(checkpoint.header.generation);
    checkpoints.found.sort_by_key(newest_first);
    Ok(checkpoints)
}

impl Checkpoints {
    fn pass_over(&mut self, file_index: usize, error: NvmeError, report: &mut RecoveryReport) {
        let name = CHECKPOINT_NAMES[file_index].to_owned();
        let reason = damage_reason(&error);
        report
            .damage
            .push(Damage::structure("checkpoint", name, reason));
        if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) {
            self.unreadable = Some(error);
        }
    }

    /// Fills index and segments from the newest one that is whole, and tells where the log goes on; `None` if there is
    /// none.
    pub(super) fn load(
        mut self,
        shared: &Shared,
        on_disk: &BTreeMap<u64, FileName>,
        memory: &ScanMemory,
        report: &mut RecoveryReport,
    ) -> Result<Option<(Checkpoint, Start)>, NvmeError> {
        for checkpoint in std::mem::take(&mut self.found) {
            match load(shared, &checkpoint, on_disk, memory) {
                Ok(start) => return Ok(Some((checkpoint, start))),
                // Nothing is wrong with it.
                Err(error @ NvmeError::MemoryLimit { .. }) => return Err(error),
                Err(error) => {
                    shared.index.clear();
                    shared.segments.clear();
                    self.pass_over(checkpoint.file_index, error, report);
                }
            }
        }
        // One that can't be read now is not one that is lost.
        self.unreadable.map_or(Ok(None), Err)
    }
}

/// What is wrong, without what to do about it.
pub(super) fn damage_reason(error: &NvmeError) -> String {
    match error {
        NvmeError::Corrupt { reason, .. } => reason.clone(),
        error => error.to_string(),
    }
}

fn failed(volume: &dyn Volume, name: &str, error: FormatError) -> NvmeError {
    match error {
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
    }
}

/// A checkpoint's header, and its file.
fn read_header(
    volume: &dyn Volume,
    name: &str,
    superblock: &Superblock,
) -> Result<(CheckpointHeader, Arc<dyn VolumeFile>), NvmeError> {
    let file = volume.open(&FileName::new(name)?)?;
    if file.len_bytes()? < PAGE_BYTES as u64 {
        let error = FormatError::Damaged("the file is too short");
        return Err(failed(volume, name, error));
    }
    let page = file.read_blocking(0, aligned_buffer(PAGE_BYTES)?)?;
    let header = CheckpointHeader::decode(&page).map_err(|error| failed(volume, name, error))?;
    if header.store_id != superblock.store_id {
        let other = FormatError::Damaged("it belongs to another store");
        return Err(failed(volume, name, other));
    }
    Ok((header, file))
}

/// Reads a whole checkpoint and compares it with its checksums.
///
/// # Errors
/// [`NvmeError::Corrupt`] if it is damaged, [`NvmeError::FileNotFound`], [`NvmeError::NewerVersion`], or
/// the reason why it can't be read.
pub(super) fn check_checkpoint(
    volume: &dyn Volume,
    name: &str,
    superblock: &Superblock,
    memory: &ScanMemory,
) -> Result<(), NvmeError> {
    let (header, file) = read_header(volume, name, superblock)?;
    check_body(file, &header, superblock.segment_bytes, memory).map_err(|unread| match unread {
        Unread::Damaged(error) => failed(volume, name, error),
        Unread::Failed(error) => error,
    })
}

fn check_body(
    file: Arc<dyn VolumeFile>,
    header: &CheckpointHeader,
    segment_bytes: u64,
    memory: &ScanMemory,
) -> Result<(), Unread> {
    let mut body = Body::open(file, header, segment_bytes, memory)?;
    while let Some(records) = body.next_records()? {
        let mut rest = records.bytes.as_slice();
        for _ in 0..records.count {
            let record = IndexRecord::decode(&mut rest)?;
            body.segments.check(&record)?;
        }
    }
    Ok(())
}

/// Fills index and segments from a checkpoint and tells where the log goes on.
fn load(
    shared: &Shared,
    checkpoint: &Checkpoint,
    on_disk: &BTreeMap<u64, FileName>,
    memory: &ScanMemory,
) -> Result<Start, NvmeError> {
    let header = &checkpoint.header;
    let name = CHECKPOINT_NAMES[checkpoint.file_index];
    let file = Arc::clone(&checkpoint.file);
    let body = Body::open(file, header, shared.segment_bytes, memory).and_then(|mut body| {
        shared.make_room_in_index(KeyGrowth {
            keys: header.entry_count,
            record_bytes: header.body_bytes - header.segment_record_bytes(),
        })?;
        shared.fill_from_body(&mut body, header.entry_count, memory)?;
        Ok(body)
    });
    let body = body.map_err(|unread| match unread {
        Unread::Damaged(error) => failed(&*shared.volume, name, error),
        Unread::Failed(error) => error,
    })?;
    for record in body.segments.segments() {
        let file = on_disk
            .get(&record.segment_id)
            .and_then(|name| shared.volume.open(name).ok());
        let segment = Segment::new(record.segment_id, file, record.used_bytes);
        shared.segments.insert(Arc::new(segment));
    }
    Ok(Start {
        segment_id: header.log_segment_id,
        offset_bytes: header.log_offset_bytes,
        sequence: header.sequence,
        checksum: header.checksum,
        synced_sequence: header.synced_sequence,
    })
}
