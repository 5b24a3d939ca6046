//! Opening a store, and what that found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use core_view::contract::ErrorKind;

use super::background::Background;
use super::buffers::Buffers;
use super::cache::Cache;
use super::checkpoint::CHECKPOINT_NAMES;
use super::compaction::Lull;
use super::create::{create, is_store, is_unfinished, read_superblock};
use super::fetch::Extent;
use super::group::CommitQueue;
use super::index::Index;
use super::index_memory::IndexMemory;
use super::load::{Checkpoints, checkpoints};
use super::log::{Log, Segments, write_page};
use super::maintenance::Maintenance;
use super::memory::{Budget, MemoryKind};
use super::prefetch::Prefetcher;
use super::read::parts;
use super::replay::{BLANK_BYTES, Replay, Start};
use super::reserve::Reserve;
use super::scan::ScanMemory;
use super::verify::Damage;
use super::{NvmeError, Shared, StorageConfig};
use crate::format::{PAGE_BYTES, Superblock, segment_id, segment_name};
use crate::{FileName, Volume, VolumeFile, VolumeLock};

/// How often a store that may be being written is read before what is wrong with it counts.
const UNLOCKED_LOOKS_MAX: u32 = 10;

/// Bytes that are looked at, and filled with zeros, at once.
const BLANK_PART_BYTES: usize = 1 << 20;

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

pub(super) fn open(volume: Arc<dyn Volume>, config: StorageConfig) -> Result<Shared, NvmeError> {
    config.check()?;
    let writable = volume.is_writable() && !config.read_only();
    let exists = is_store(&*volume)?;
    let may_create = config.create() && writable;
    if !exists && !may_create {
        let path = volume.report().location;
        let reason = "there is no store in it; add something to make one".to_owned();
        return Err(NvmeError::NotAStore { path, reason });
    }
    if !volume.is_writable() {
        return match volume.lock_shared() {
            Ok(lock) => read_store(volume, config, Some(lock)),
            Err(_) => open_unlocked(&volume, &config),
        };
    }
    let lock = if config.read_only() {
        volume.lock_shared()?
    } else {
        volume.lock()?
    };
    let is_new = may_create && !is_store(&*volume)?;
    if is_new {
        create(&*volume, &config)?;
    }
    let mut shared = read_store(volume, config, Some(lock))?;
    shared.recovery.created = is_new;
    shared.recovery.clean &= !is_new;
    Ok(shared)
}

/// Opens a store that somebody else may be writing. What changes between two looks can seem to be damage:
/// only what is still so after several is.
fn open_unlocked(volume: &Arc<dyn Volume>, config: &StorageConfig) -> Result<Shared, NvmeError> {
    let mut looks = 0;
    loop {
        // Taken before anything is read: what is found stays as it is for as long as this store is open.
        let reading = volume.lock_reading();
        let opened = read_store(Arc::clone(volume), config.clone(), None).map(|shared| Shared {
            _reading: reading,
            ..shared
        });
        let is_sound = match &opened {
            Ok(shared) => {
                let segments = shared.segments.all();
                segments.iter().all(|segment| segment.file.is_some())
            }
            Err(error) => !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound),
        };
        looks += 1;
        if is_sound || looks == UNLOCKED_LOOKS_MAX {
            return opened;
        }
    }
}

/// Reads the store that is there, and makes it sound if it may be written.
fn read_store(
    volume: Arc<dyn Volume>,
    config: StorageConfig,
    lock: Option<Box<dyn VolumeLock>>,
) -> Result<Shared, NvmeError> {
    let mut report = RecoveryReport::default();
    let (superblock, damaged) = read_superblock(&*volume)?;
    for (copy, error) in damaged {
        report.damage.push(Damage::structure(
            "superblock",
            format!("copy {copy}"),
            error.reason(),
        ));
    }
    let read_only = read_only_reason(&*volume, &config, &superblock)?;
    let checkpoints = checkpoints(&*volume, &superblock, &mut report)?;
    let budget = Budget::new(config.memory_limit_bytes());
    let set_aside = [
        budget.try_reserve(MemoryKind::Compaction, budget.compaction_bytes())?,
        budget.try_reserve(MemoryKind::Checkpoint, budget.checkpoint_bytes())?,
    ];
    let shared = Shared {
        alignment: volume.report().alignment,
        store_id: superblock.store_id,
        segment_bytes: superblock.segment_bytes,
        life: life(&*volume),
        read_only,
        prefetcher: Prefetcher::new(config.prefetch_distance()),
        cache: Cache::new(config.cache_size(), Arc::clone(&budget)),
        index_memory: IndexMemory::new(budget.try_reserve(MemoryKind::Index, 0)?),
        buffers: Buffers::new(budget)?,
        _set_aside: set_aside,
        index: Index::new(),
        segments: Segments::default(),
        spares: Default::default(),
        log: Mutex::new(empty_log()),
        log_bytes: AtomicU64::new(0),
        features: AtomicU64::new(superblock.incompatible),
        maintenance: Maintenance::default(),
        background: Background::default(),
        lull: Lull::default(),
        reserve: Reserve::default(),
        queue: Default::default(),
        counters: Default::default(),
        recovery: RecoveryReport::default(),
        poison: Mutex::new(None),
        closed: AtomicBool::new(false),
        lock: Mutex::new(lock.map(Arc::from)),
        _reading: None,
        volume,
        config,
    };
    recover(shared, checkpoints, report)
}

/// A number that no other opening has, for who may write.
fn life(volume: &dyn Volume) -> u64 {
    let mut id = [0; 16];
    if volume.is_writable() {
        // mutant: no-life
        id = volume.unique_id();
    }
    let [a, b, c, d, e, f, g, h, ..] = id;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn empty_log() -> Log {
    Log {
        active: None,
        offset_bytes: PAGE_BYTES as u64,
        sequence: 0,
        checksum: 0,
        segment_id_max: 0,
        is_reserve: false,
    }
}

/// Loads the checkpoint, replays what is newer, and makes durable what was read.
fn recover(
    mut shared: Shared,
    checkpoints: Checkpoints,
    mut report: RecoveryReport,
) -> Result<Shared, NvmeError> {
    let on_disk = segments_on_disk(&*shared.volume)?;
    // A reader too: what it does not find must not be there later. Without a lock there may be a writer.
    let lock = shared
        .lock
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner);
    if lock.is_some() {
        for name in on_disk.values() {
            shared.volume.settle(name)?;
        }
    }
    let mut memory = ScanMemory::for_opening(shared.buffers.budget())?;
    let loaded = checkpoints.load(&shared, &on_disk, &memory, &mut report)?;
    let (checkpoint, start) = loaded.unzip();
    report.without_checkpoint = checkpoint.is_none();
    let start = start.unwrap_or(Start {
        segment_id: 0,
        offset_bytes: PAGE_BYTES as u64,
        sequence: 0,
        checksum: 0,
        synced_sequence: 0,
    });
    if shared
        .segments
        .all()
        .iter()
        .any(|segment| segment.file.is_none())
    {
        // Whether anything lives in those that are missing matters now.
        shared.count_live();
    }
    check_segment_headers(&shared, &mut report);
    let replayed = Replay::new(&shared, &on_disk, start, &mut memory)?.run(&mut report)?;
    shared.count_live();
    shared.charge_opened_index()?;
    if report.without_checkpoint && replayed.sequence == 0 && !on_disk.is_empty() {
        return Err(no_checkpoint(&shared));
    }
    report.clean = checkpoint
        .as_ref()
        .is_some_and(|checkpoint| checkpoint.header.clean)
        && report.batches_replayed == 0
        && report.tail_batches_discarded == 0;
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
        is_reserve: false,
    };
    shared.reserve = Reserve::find(&*shared.volume)?;
    shared.maintenance = Maintenance::new(generation, file_index == 0);
    shared.log_bytes = AtomicU64::new(replayed.log_bytes);
    if shared.read_only.is_none() {
        erase_end(&log, &shared.buffers, memory.value_bytes())?;
        sync_all(&shared, start.segment_id)?;
        report.files_removed = remove_unfinished(&shared, &on_disk)?;
    }
    drop(memory);
    shared.buffers.count_kept()?;
    shared.queue = CommitQueue::after(log.sequence);
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

/// Segments by id, as the names of the files say.
fn segments_on_disk(volume: &dyn Volume) -> Result<BTreeMap<u64, FileName>, NvmeError> {
    let names = volume.list()?;
    Ok(names
        .into_iter()
        .filter_map(|name| Some((segment_id(&name)?, name)))
        .collect())
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
fn erase_end(log: &Log, buffers: &Buffers, part_bytes: usize) -> Result<(), NvmeError> {
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
    // Also where zeros are read: a recovery before this one may have written them, and its sync failed.
    write_page(&**file, log.offset_bytes, &[0; PAGE_BYTES])?;
    blank_behind(&**file, log.offset_bytes, buffers, part_bytes);
    Ok(())
}

/// Puts zeros behind the end of the log, in a file that was another segment before: they tell the next open that
/// there is nothing more to look for. Without them it looks longer, so that a failure does no harm.
///
/// No more than `part_bytes` are in memory at once.
pub(super) fn blank_behind(
    file: &dyn VolumeFile,
    offset_bytes: u64,
    buffers: &Buffers,
    part_bytes: usize,
) {
    let rest_bytes = file.len_bytes().unwrap_or(0).saturating_sub(offset_bytes);
    let bytes = rest_bytes.min(BLANK_BYTES) as usize;
    let extent = Extent {
        start_bytes: offset_bytes,
        len_bytes: bytes - bytes % PAGE_BYTES,
    };
    for part in parts(extent, part_bytes.min(BLANK_PART_BYTES)) {
        let Ok(target) = buffers.lend_reserved(part.len_bytes) else {
            return;
        };
        let mut found = match file.read_blocking(part.start_bytes, target) {
            Ok(found) if found.iter().all(|&byte| byte == 0) => continue,
            Ok(found) => found,
            // What can't be read can be written, perhaps.
            Err(_) => match buffers.lend_reserved(part.len_bytes) {
                Ok(target) => target,
                Err(_) => return,
            },
        };
        found.fill(0);
        drop(file.write(part.start_bytes, found).wait());
    }
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
    let unfinished = shared.volume.list()?.into_iter().filter(is_unfinished);
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
