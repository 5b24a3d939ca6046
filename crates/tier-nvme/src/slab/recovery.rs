//! Opening a slab: the newer table that is whole, and the records that follow it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::commit::aligned_buffer;
use super::create::{SUPERBLOCK_NAME, create, damaged, is_slab, is_unfinished, read_superblock};
use super::journal::{Journal, JournalLock};
use super::load::{Loaded, load_tables};
use super::replay::{Found, Replayed, is_payload, replay, scan_logs};
use super::slots::SlotMap;
use super::table::BlockTable;
use super::tables::TABLE_NAMES;
use super::{Shared, SlabConfig};
use crate::format::PAGE_BYTES;
use crate::format::slab::{
    BlockEdit, SlabSuperblock, SlotGeometry, blocks_name, blocks_segment_id,
};
use crate::store::Damage;
use crate::{FileName, NvmeError, Volume, VolumeFile, VolumeLock};

/// What was found when a slab was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlabRecovery {
    /// Whether the slab was made by this call.
    pub created: bool,
    /// Whether it was closed cleanly before, with nothing written since.
    pub clean: bool,
    /// Records replayed from the logs.
    pub records_replayed: u64,
    /// Records of them that nobody was known to have been told of, and that were whole all the same.
    pub tail_records_taken: u64,
    /// Records at the end that were not whole, and never acknowledged.
    pub tail_records_discarded: u64,
    /// Files of operations that never finished, removed.
    pub files_removed: u64,
    /// Structures that were damaged and replaced by their copy, and segments that are missing.
    pub damage: Vec<Damage>,
}

/// A segment's file that can be used.
pub(super) type SegmentFiles = BTreeMap<u32, Arc<dyn VolumeFile>>;

pub(super) fn open(volume: Arc<dyn Volume>, config: SlabConfig) -> Result<Shared, NvmeError> {
    config.check()?;
    let writable = volume.is_writable() && !config.read_only();
    let exists = is_slab(&*volume)?;
    let may_create = config.create() && writable;
    if !exists && !may_create {
        let path = volume.report().location;
        let reason = "there is no slab in it; open it for writing to make one".to_owned();
        return Err(NvmeError::NotAStore { path, reason });
    }
    let lock = match volume.is_writable() {
        true => Some(volume.lock()?),
        false => None,
    };
    let is_new = !is_slab(&*volume)?;
    if is_new {
        create(&*volume, &config)?;
    }
    let mut shared = read_slab(volume, config, lock)?;
    shared.recovery.created = is_new;
    shared.recovery.clean &= !is_new;
    Ok(shared)
}

fn read_slab(
    volume: Arc<dyn Volume>,
    config: SlabConfig,
    lock: Option<Box<dyn VolumeLock>>,
) -> Result<Shared, NvmeError> {
    let (superblock, damage) = read_superblock(&*volume)?;
    let read_only = read_only_reason(&*volume, &config, &superblock)?;
    let geometry = superblock.geometry;
    if geometry.block_bytes != config.block_bytes() {
        return Err(NvmeError::Invalid {
            field: "block_bytes",
            reason: format!(
                "the slab has blocks of {} bytes, not {}; open it with that size or make a new one",
                geometry.block_bytes,
                config.block_bytes()
            ),
        });
    }
    let report = volume.report();
    let shared = Shared {
        alignment: report.alignment,
        store_id: superblock.store_id,
        segments_max: config.capacity_bytes() / geometry.segment_bytes,
        geometry,
        read_only,
        table: BlockTable::new(),
        slots: SlotMap::default(),
        journal: JournalLock::default(),
        queue: Default::default(),
        counters: Default::default(),
        recovery: SlabRecovery {
            damage,
            ..SlabRecovery::default()
        },
        poison: Mutex::new(None),
        unknown: RwLock::default(),
        closed: AtomicBool::new(false),
        end_is_due: AtomicBool::new(false),
        ending: Mutex::new(Ok(())),
        lock: Mutex::new(lock),
        volume,
        config,
    };
    recover(shared)
}

fn read_only_reason(
    volume: &dyn Volume,
    config: &SlabConfig,
    superblock: &SlabSuperblock,
) -> Result<Option<String>, NvmeError> {
    if superblock.incompatible != 0 {
        return Err(NvmeError::UnknownFeatures {
            path: volume.report().location,
            bits: superblock.incompatible,
        });
    }
    Ok(if config.read_only() {
        Some("it was opened for reading".to_owned())
    } else if !volume.is_writable() {
        Some("the directory can't be written".to_owned())
    } else if superblock.compatible != 0 {
        let bits = superblock.compatible;
        Some(format!("it uses features {bits:#x} of a newer version"))
    } else {
        None
    })
}

fn recover(mut shared: Shared) -> Result<Shared, NvmeError> {
    let mut report = std::mem::take(&mut shared.recovery);
    let names = shared.volume.list()?;
    // A reader too: what it does not find must not be there later. Without a lock there may be a writer.
    let lock = shared
        .lock
        .get_mut()
        .unwrap_or_else(PoisonError::into_inner);
    if lock.is_some() {
        let is_ours = |name: &&FileName| {
            let name_text = name.as_str();
            blocks_segment_id(name).is_some()
                || TABLE_NAMES.contains(&name_text)
                || name_text == SUPERBLOCK_NAME
        };
        for name in names.iter().filter(is_ours) {
            shared.volume.settle(name)?;
        }
    }
    let loaded = load_tables(&shared, &mut report)?;
    let (mut files, mut unused) = segment_files(&shared, &names, &loaded, &mut report)?;
    let missing = loaded.segments.iter().find(|id| !files.contains_key(id));
    let found = scan_logs(&shared, &files, loaded.header.generation)?;
    let is_quiet = loaded.header.clean && found.is_empty();
    if let (Some(id), false) = (missing, is_quiet) {
        return Err(NvmeError::Corrupt {
            structure: "segment",
            location: blocks_name(*id)?.to_string(),
            reason: "it is missing or too short, and with it what its log may have said".to_owned(),
        });
    }
    let highest = files.keys().chain(&loaded.segments).max().copied();
    let surplus = surplus(&files, &loaded, &found, shared.segments_max);
    for id in &surplus {
        files.remove(id);
        unused.push(blocks_name(*id)?);
    }
    for id in loaded.segments.iter().chain(files.keys()) {
        if shared.slots.get(*id).is_none() {
            let slots = shared.geometry.slots() as u32;
            shared.slots.add(*id, files.get(id).cloned(), slots);
        }
    }
    let mut replayed = replay(&shared, &loaded, found.records, &mut report)?;
    report.clean = is_quiet;
    let journal = Journal {
        epoch: loaded.header.generation,
        sequence: replayed.sequence,
        checksum: replayed.checksum,
        synced_sequence: replayed.sequence,
        segment_id_next: loaded
            .header
            .segment_id_next
            .max(highest.map_or(0, |id| id.saturating_add(1))),
        first_table: loaded.overwrite_first,
        ..Journal::default()
    };
    if shared.read_only.is_none() {
        let is_settled = is_quiet
            && loaded.is_twice
            && loaded.len_bytes >= shared.table_bytes()
            && surplus.is_empty()
            && files.len() == loaded.segments.len();
        make_sound(&shared, journal, &mut replayed, is_settled)?;
        report.files_removed = remove_unfinished(&shared, &names, &unused)?;
    }
    shared.recovery = report;
    Ok(shared)
}

/// Makes durable what was read, in tables of a generation that no record has named yet.
fn make_sound(
    shared: &Shared,
    mut journal: Journal,
    replayed: &mut Replayed,
    is_settled: bool,
) -> Result<(), NvmeError> {
    for (key, place) in replayed.tail.drain(..) {
        // Written again: an earlier sync may have failed, and what is read need not be on the device.
        let payload = shared.payload_at(&place)?;
        if !is_payload(&payload, &place) {
            return Err(NvmeError::Corrupt {
                structure: "block",
                location: format!("block {key}"),
                reason: "its bytes changed while the slab was opened".to_owned(),
            });
        }
        let segment = shared.slots.get(place.segment_id);
        if let Some(file) = segment.and_then(|segment| segment.file.clone()) {
            let offset_bytes = shared.geometry.slot_offset_bytes(place.slot);
            file.write(offset_bytes, payload).wait()?; // mutant: slab-no-rewrite
            journal.dirty.insert(place.segment_id);
        }
    }
    if !is_settled {
        shared.volume.sync_directory()?;
        shared.write_tables(&mut journal, false)?;
    }
    *shared.journal() = journal;
    Ok(())
}

/// The segments whose file is there and long enough, and those that were never used.
fn segment_files(
    shared: &Shared,
    names: &[FileName],
    loaded: &Loaded,
    report: &mut SlabRecovery,
) -> Result<(SegmentFiles, Vec<FileName>), NvmeError> {
    let mut files = BTreeMap::new();
    let mut unused = Vec::new();
    for name in names {
        let Some(id) = blocks_segment_id(name) else {
            continue;
        };
        let file = shared.volume.open(name)?;
        let is_known = loaded.segments.contains(&id);
        let is_long_enough = file.len_bytes()? >= shared.geometry.segment_bytes;
        let header = if is_long_enough {
            check_header(shared, id, &*file)?
        } else {
            Err("the file is too short".to_owned())
        };
        match header {
            Ok(()) => {
                files.insert(id, file);
            }
            Err(reason) if is_known => {
                report
                    .damage
                    .push(damaged("segment header", name.to_string(), reason));
                if is_long_enough {
                    files.insert(id, file);
                }
            }
            // Its creation was not finished; nothing was ever put there.
            Err(_) => unused.push(name.clone()),
        }
    }
    for id in loaded.segments.iter().filter(|id| !files.contains_key(id)) {
        let name = blocks_name(*id)?.to_string();
        let is_there = names.iter().any(|it| it.as_str() == name);
        if !is_there {
            let reason = "the file is missing".to_owned();
            report.damage.push(damaged("segment", name, reason));
        }
    }
    Ok((files, unused))
}

/// Segments beyond the bound in which nothing was ever put: making one failed and removing it did not last, and
/// another was made instead.
fn surplus(files: &SegmentFiles, loaded: &Loaded, found: &Found, segments_max: u64) -> Vec<u32> {
    let excess = (files.len() as u64).saturating_sub(segments_max) as usize;
    let mut used: BTreeSet<u32> = &loaded.segments | &found.begun;
    for record in &found.records {
        used.insert(record.place.segment_id);
        used.extend(record.edits.iter().filter_map(|edit| match edit {
            BlockEdit::Put(_, place) => Some(place.segment_id),
            BlockEdit::Remove(_) => None,
        }));
    }
    let is_empty = |id: &&u32| !used.contains(id);
    files
        .keys()
        .filter(is_empty)
        .take(excess)
        .copied()
        .collect()
}

/// What is wrong with the header of a segment, if it can be read.
pub(super) fn check_header(
    shared: &Shared,
    id: u32,
    file: &dyn VolumeFile,
) -> Result<Result<(), String>, NvmeError> {
    let page = file.read_blocking(0, aligned_buffer(PAGE_BYTES)?)?;
    let geometry: &SlotGeometry = &shared.geometry;
    let checked = geometry.check_segment_header(shared.store_id, id, &page);
    Ok(checked.map_err(|error| error.reason()))
}

fn remove_unfinished(
    shared: &Shared,
    names: &[FileName],
    unused: &[FileName],
) -> Result<u64, NvmeError> {
    let unfinished = names.iter().filter(|name| is_unfinished(name));
    let mut removed = 0;
    for name in unfinished.chain(unused) {
        match shared.volume.remove(name) {
            Ok(()) => removed += 1,
            Err(NvmeError::FileNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if removed > 0 {
        shared.volume.sync_directory()?;
    }
    Ok(removed)
}
