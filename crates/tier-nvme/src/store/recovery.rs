//! Opening a store, and what that found.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use core_view::contract::ErrorKind;

use super::checkpoint::{CHECKPOINT_NAMES, UNFINISHED_SUFFIX};
use super::create::{create, is_store, read_superblock};
use super::index::{Index, Slot};
use super::log::{Log, Segment, Segments, aligned_buffer, write_page};
use super::read::read_stored;
use super::replay::{Replay, Start};
use super::verify::Damage;
use super::{NvmeError, Shared, StorageConfig};
use crate::format::{
    CheckpointHeader, FormatError, IndexRecord, PAGE_BYTES, SegmentRecord, StoreId, Superblock,
    VERSION, segment_id, segment_name,
};
use crate::{FileName, Volume};

/// What was found when the store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the store was made by this call.
    pub created: bool,
    /// Whether it was closed cleanly before, with nothing written since.
    pub clean: bool,
    /// Batches replayed from the log.
    pub batches_replayed: u64,
    /// Batches at the end of the log that were never acknowledged and were whole all the same.
    pub tail_batches_taken: u64,
    /// Batches at the end of the log that were never acknowledged and were not whole.
    pub tail_batches_discarded: u64,
    /// Whether the log was replayed from its beginning because no checkpoint was right.
    pub without_checkpoint: bool,
    /// Files of operations that never finished, removed.
    pub files_removed: u64,
    /// Structures that were damaged and not needed, or replaced by their copy.
    pub damage: Vec<Damage>,
}

/// The newest checkpoint that is whole.
struct Checkpoint {
    header: CheckpointHeader,
    body: Vec<u8>,
    /// Which of the two files it is.
    file_index: usize,
}

pub(super) fn open(volume: Arc<dyn Volume>, config: StorageConfig) -> Result<Shared, NvmeError> {
    config.check()?;
    let mut report = RecoveryReport::default();
    let writable = volume.is_writable() && !config.read_only();
    let exists = is_store(&*volume)?;
    let may_create = config.create() && writable;
    if !exists && !may_create {
        let path = volume.report().location;
        let reason = "there is no store in it; add something to make one".to_owned();
        return Err(NvmeError::NotAStore { path, reason });
    }
    let lock = if volume.is_writable() {
        Some(volume.lock()?)
    } else {
        None
    };
    if !is_store(&*volume)? {
        create(&*volume, &config)?;
        report.created = true;
    }
    let (superblock, damaged) = read_superblock(&*volume)?;
    for (copy, error) in damaged {
        report.damage.push(Damage::structure(
            "superblock",
            format!("copy {copy}"),
            error.reason(),
        ));
    }
    let read_only = read_only_reason(&*volume, &config, &superblock)?;
    let checkpoint = newest_checkpoint(&*volume, superblock.store_id, &mut report)?;
    let shared = Shared {
        store_id: superblock.store_id,
        segment_bytes: superblock.segment_bytes,
        read_only,
        index: Index::new(),
        segments: Segments::default(),
        log: Mutex::new(empty_log()),
        queue: Default::default(),
        counters: Default::default(),
        recovery: RecoveryReport::default(),
        poison: Mutex::new(None),
        lock: Mutex::new(lock),
        volume,
        config,
    };
    recover(shared, checkpoint, report)
}

fn empty_log() -> Log {
    Log {
        active: None,
        offset_bytes: PAGE_BYTES as u64,
        sequence: 0,
        checksum: 0,
        segment_id_max: 0,
        generation: 0,
        checkpoint_turn: false,
        bytes_since_checkpoint: 0,
        retiring: Vec::new(),
    }
}

/// Loads the checkpoint, replays what is newer, and makes durable what was read.
fn recover(
    mut shared: Shared,
    checkpoint: Option<Checkpoint>,
    mut report: RecoveryReport,
) -> Result<Shared, NvmeError> {
    let on_disk = segments_on_disk(&*shared.volume)?;
    if shared.read_only.is_none() {
        for name in on_disk.values() {
            shared.volume.settle(name)?;
        }
    }
    let start = match &checkpoint {
        Some(checkpoint) => load(&shared, checkpoint, &on_disk)?,
        None => {
            report.without_checkpoint = true;
            Start {
                segment_id: 0,
                offset_bytes: PAGE_BYTES as u64,
                sequence: 0,
                checksum: 0,
            }
        }
    };
    check_segment_headers(&shared, &mut report);
    let replayed = Replay::new(&shared, &on_disk, start)?.run(&mut report)?;
    if report.without_checkpoint && replayed.sequence == 0 && !on_disk.is_empty() {
        return Err(no_checkpoint(&shared));
    }
    report.clean = checkpoint
        .as_ref()
        .is_some_and(|checkpoint| checkpoint.header.clean)
        && report.batches_replayed == 0
        && report.tail_batches_discarded == 0
        && !report.created;
    let (generation, file_index) = checkpoint.map_or((0, 1), |checkpoint| {
        (checkpoint.header.generation, checkpoint.file_index)
    });
    let log = Log {
        active: shared.segments.get(replayed.segment_id),
        offset_bytes: replayed.offset_bytes,
        sequence: replayed.sequence,
        checksum: replayed.checksum,
        segment_id_max: on_disk
            .keys()
            .next_back()
            .copied()
            .unwrap_or(0)
            .max(replayed.segment_id),
        generation,
        checkpoint_turn: file_index == 0,
        bytes_since_checkpoint: replayed.log_bytes,
        retiring: Vec::new(),
    };
    if shared.read_only.is_none() {
        erase_end(&log)?;
        sync_all(&shared, start.segment_id)?;
        report.files_removed = remove_unfinished(&shared, &on_disk)?;
    }
    shared.log = Mutex::new(log);
    shared.recovery = report;
    Ok(shared)
}

fn no_checkpoint(shared: &Shared) -> NvmeError {
    NvmeError::Corrupt {
        structure: "checkpoint",
        location: format!(
            "{} of {}",
            CHECKPOINT_NAMES.join(" and "),
            shared.volume.report().location
        ),
        reason: "neither is whole, and the log does not go back to its beginning".to_owned(),
    }
}

fn read_only_reason(
    volume: &dyn Volume,
    config: &StorageConfig,
    superblock: &Superblock,
) -> Result<Option<String>, NvmeError> {
    let incompatible = superblock.unknown_incompatible();
    if incompatible != 0 {
        let path = volume.report().location;
        return Err(NvmeError::UnknownFeatures {
            path,
            bits: incompatible,
        });
    }
    let compatible = superblock.unknown_compatible();
    Ok(if config.read_only() {
        Some("it was opened for reading".to_owned())
    } else if !volume.is_writable() {
        Some("the directory can't be written".to_owned())
    } else if compatible != 0 {
        Some(format!(
            "it uses features {compatible:#x} of a newer version"
        ))
    } else {
        None
    })
}

/// Reads both checkpoints and takes the newer one that is whole.
fn newest_checkpoint(
    volume: &dyn Volume,
    store_id: StoreId,
    report: &mut RecoveryReport,
) -> Result<Option<Checkpoint>, NvmeError> {
    let mut newest: Option<Checkpoint> = None;
    let mut unreadable = None;
    for (file_index, name) in CHECKPOINT_NAMES.into_iter().enumerate() {
        match read_checkpoint(volume, name, store_id) {
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
    store_id: StoreId,
) -> Result<(CheckpointHeader, Vec<u8>), NvmeError> {
    let file = volume.open(&FileName::new(name)?)?;
    let len_bytes = file.len_bytes()? / PAGE_BYTES as u64 * PAGE_BYTES as u64;
    let bytes = read_stored(&*file, 0, len_bytes)?;
    let parsed = CheckpointHeader::decode(&bytes).and_then(|header| {
        if header.store_id != store_id {
            return Err(FormatError::Damaged("it belongs to another store"));
        }
        let body = header.body(&bytes)?;
        Ok((header, body))
    });
    parsed.map_err(|error| match error {
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
    })
}

/// Segments by id, as the names of the files say.
fn segments_on_disk(volume: &dyn Volume) -> Result<BTreeMap<u64, FileName>, NvmeError> {
    let names = volume.list()?;
    Ok(names
        .into_iter()
        .filter_map(|name| Some((segment_id(&name)?, name)))
        .collect())
}

/// Fills index and segments from a checkpoint and tells where the log goes on.
fn load(
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
    for _ in 0..header.entry_count {
        let record = IndexRecord::decode(&mut body).map_err(damaged)?;
        let slot = Slot {
            segment_id: record.segment_id,
            offset_bytes: record.offset_bytes,
            stored_bytes: record.stored_bytes,
            raw_bytes: record.raw_bytes,
            sequence: record.sequence,
            checksum: record.checksum,
            encoding: record.encoding,
        };
        shared.segments.add_live(&slot);
        shared.index.insert(record.key.into(), slot);
    }
    Ok(Start {
        segment_id: header.log_segment_id,
        offset_bytes: header.log_offset_bytes,
        sequence: header.sequence,
        checksum: header.checksum,
    })
}

/// Notes segments of the checkpoint that are missing or whose header is wrong; their values are checked
/// when they are read.
fn check_segment_headers(shared: &Shared, report: &mut RecoveryReport) {
    for segment in shared.segments.all() {
        let missing_is_fine = segment.live_values.load(Ordering::Relaxed) == 0;
        if segment.file.is_none() && missing_is_fine {
            shared.segments.remove(segment.id);
        } else if let Err(reason) = shared.check_segment_header(&segment) {
            report.damage.push(Damage::structure(
                "segment header",
                name_of(segment.id),
                reason,
            ));
        }
    }
}

/// The name of a segment's file, for a message.
pub(super) fn name_of(segment_id: u64) -> String {
    segment_name(segment_id)
        .map(|name| name.to_string())
        .unwrap_or_default()
}

/// Overwrites what a discarded batch left where the log ends. If the next batch goes to another
/// segment, nothing else would, and a later recovery could take it for the one that came in its place.
fn erase_end(log: &Log) -> Result<(), NvmeError> {
    let Some(file) = log
        .active
        .as_ref()
        .and_then(|segment| segment.file.as_ref())
    else {
        return Ok(());
    };
    if log.offset_bytes + PAGE_BYTES as u64 > file.len_bytes()? {
        return Ok(());
    }
    let page = file.read_blocking(log.offset_bytes, aligned_buffer(PAGE_BYTES)?)?;
    if page.iter().any(|&byte| byte != 0) {
        write_page(&**file, log.offset_bytes, &[0; PAGE_BYTES])?;
    }
    Ok(())
}

/// Syncs what the log was read from: the writer that wrote it may have died before it did.
fn sync_all(shared: &Shared, from_segment_id: u64) -> Result<(), NvmeError> {
    for segment in shared.segments.all() {
        if let (true, Some(file)) = (segment.id >= from_segment_id, &segment.file) {
            file.sync().wait()?;
        }
    }
    shared.volume.sync_directory()
}

/// Removes files that an operation left behind: unfinished ones, and segments that hold no batch.
fn remove_unfinished(shared: &Shared, on_disk: &BTreeMap<u64, FileName>) -> Result<u64, NvmeError> {
    let unfinished = shared
        .volume
        .list()?
        .into_iter()
        .filter(|name| name.as_str().ends_with(UNFINISHED_SUFFIX));
    let unused = on_disk
        .iter()
        .filter(|(id, _)| shared.segments.get(**id).is_none())
        .map(|(_, name)| name.clone());
    let mut removed = 0;
    for name in unfinished.chain(unused).collect::<Vec<_>>() {
        shared.volume.remove(&name)?;
        removed += 1;
    }
    if removed > 0 {
        shared.volume.sync_directory()?;
    }
    Ok(removed)
}
