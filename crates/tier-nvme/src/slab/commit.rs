//! Committing what callers changed: a record, a sync, then the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;
use core_view::contract::{BlockKey, ContractError, Transfer};

use super::Shared;
use super::journal::Journal;
use super::queue::{ItemState, Ready};
use super::slots::SlotId;
use crate::format::slab::{BlockEdit, BlockPlace, LogPlace, Record, blocks_name};
use crate::format::{COUNT_MAX, PAGE_BYTES};
use crate::{NvmeError, VolumeFile};

/// Largest record in bytes.
const RECORD_BYTES_MAX: usize = 256 << 10;

/// Zeroed memory that starts on a page.
pub(super) fn aligned_buffer(len_bytes: usize) -> Result<BufferMut, NvmeError> {
    BufferMut::zeroed(len_bytes, PAGE_BYTES).map_err(|error| NvmeError::Transfer(error.into()))
}

/// Whole pages with `bytes` in front.
pub(super) fn pages_of(bytes: &[u8]) -> Result<BufferMut, NvmeError> {
    let mut pages = aligned_buffer(bytes.len().next_multiple_of(PAGE_BYTES))?;
    if let Some(front) = pages.get_mut(..bytes.len()) {
        front.copy_from_slice(bytes);
    }
    Ok(pages)
}

/// A change, and whose it is: the job and its item.
struct Planned {
    job: usize,
    item: usize,
    edit: BlockEdit,
}

impl Shared {
    /// Commits what is ready, and notes in each job how it ended.
    pub(super) fn commit(&self, journal: &mut Journal, group: &mut [Ready]) {
        if let Err(error) = self.check_poison() {
            return fail_from(group, 0, &error.into());
        }
        let bytes_max = RECORD_BYTES_MAX.min(self.geometry.log_bytes as usize);
        let committed = if Record::bytes_for(edits_bytes_max(group)) <= bytes_max {
            self.commit_at_once(journal, group)
        } else {
            self.land(group);
            self.commit_in_records(journal, group, bytes_max)
        };
        if committed {
            self.count(group);
        }
    }

    /// Commits a group by one record, which is on its way while the payloads are.
    fn commit_at_once(&self, journal: &mut Journal, group: &mut [Ready]) -> bool {
        let edits = self.plan(group).into_iter().map(|planned| planned.edit);
        let edits: Vec<_> = edits.collect();
        if edits.is_empty() {
            return true;
        }
        let land = || {
            self.land(group).then(|| {
                let plan = self.plan(group).into_iter();
                plan.map(|planned| planned.edit).collect()
            })
        };
        let committed = self.commit_record(journal, edits, land);
        if let Err(error) = &committed {
            fail_from(group, 0, &error.clone().into());
        }
        committed.is_ok()
    }

    /// Commits a group whose payloads are written by as many records as it takes.
    fn commit_in_records(
        &self,
        journal: &mut Journal,
        group: &mut [Ready],
        bytes_max: usize,
    ) -> bool {
        let plan = self.plan(group);
        let mut plan = plan.into_iter().peekable();
        while let Some(first) = plan.peek() {
            let (job, item) = (first.job, first.item);
            let mut edits_bytes = 0;
            let mut edits = Vec::new();
            while let Some(next) = plan.next_if(|next| {
                Record::bytes_for(edits_bytes + next.edit.encoded_bytes()) <= bytes_max
            }) {
                edits_bytes += next.edit.encoded_bytes();
                edits.push(next.edit);
            }
            if let Err(error) = self.commit_record(journal, edits, || None) {
                let error = ContractError::from(error);
                fail_item_from(group, job, item, &error);
                return false;
            }
        }
        true
    }

    /// Nobody can say what became of a group's changes.
    pub(super) fn lose_group(&self, group: &mut [Ready], error: &NvmeError) {
        let mut keys = Vec::new();
        for ready in group.iter() {
            match ready {
                Ready::Put(put) => {
                    let begun = |state: &ItemState| matches!(state, ItemState::Placed(_));
                    let begun = put.items.iter().filter(|item| begun(&item.state));
                    keys.extend(begun.map(|item| item.key));
                }
                Ready::Remove(remove) => keys.extend(&remove.keys),
            }
        }
        self.lose(keys);
        fail_from(group, 0, &error.clone().into());
    }

    /// The changes of a group in order. A removal of what is not there changes nothing.
    fn plan(&self, group: &mut [Ready]) -> Vec<Planned> {
        let mut plan = Vec::new();
        let mut changed: BTreeMap<BlockKey, bool> = BTreeMap::new();
        let has_removals = group.iter().any(|it| matches!(it, Ready::Remove(_)));
        for (job, ready) in group.iter_mut().enumerate() {
            match ready {
                Ready::Put(put) => {
                    for (item, it) in put.items.iter().enumerate() {
                        let ItemState::Placed(id) = it.state else {
                            continue;
                        };
                        if has_removals {
                            changed.insert(it.key, true);
                        }
                        let place = BlockPlace {
                            segment_id: id.segment_id,
                            slot: id.slot,
                            payload_bytes: it.payload_bytes,
                            checksum: it.checksum,
                            meta: it.meta.as_slice().into(),
                        };
                        let edit = BlockEdit::Put(it.key, place);
                        plan.push(Planned { job, item, edit });
                    }
                }
                Ready::Remove(remove) => {
                    remove.removed.clear();
                    for (item, &key) in remove.keys.iter().enumerate() {
                        let there = changed.get(&key).copied();
                        let there = there.unwrap_or_else(|| self.table.contains(key));
                        remove.removed.push(there);
                        if there {
                            changed.insert(key, false);
                            let edit = BlockEdit::Remove(key);
                            plan.push(Planned { job, item, edit });
                        }
                    }
                }
            }
        }
        plan
    }

    fn count(&self, group: &[Ready]) {
        let counters = &self.counters;
        for ready in group {
            match ready {
                Ready::Put(put) => {
                    let placed = |state: &ItemState| matches!(state, ItemState::Placed(_));
                    let stored = put.items.iter().filter(|item| placed(&item.state));
                    let (mut count, mut bytes) = (0, 0);
                    for item in stored {
                        count += 1;
                        bytes += u64::from(item.payload_bytes);
                    }
                    counters.puts.fetch_add(count, Ordering::Relaxed);
                    counters.put_bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                Ready::Remove(remove) => {
                    let count = remove.removed.iter().filter(|&&there| there).count();
                    counters.removes.fetch_add(count as u64, Ordering::Relaxed);
                }
            }
        }
    }

    /// Writes one record, makes it durable where that is promised, and changes the table.
    ///
    /// Meanwhile `land` waits for payloads. If some could not be written, it gives the changes without them, and the
    /// record is written again with those, in the same place: nobody was told of it, and until it is synced recovery
    /// believes it only if every payload is whole.
    fn commit_record(
        &self,
        journal: &mut Journal,
        edits: Vec<BlockEdit>,
        land: impl FnOnce() -> Option<Vec<BlockEdit>>,
    ) -> Result<(), NvmeError> {
        let touched: BTreeSet<u32> = edits
            .iter()
            .filter_map(|edit| match edit {
                BlockEdit::Put(_, place) => Some(place.segment_id),
                BlockEdit::Remove(_) => None,
            })
            .collect();
        let edits_bytes = edits.iter().map(BlockEdit::encoded_bytes).sum();
        let segment_id = self.log_for(journal, &touched, Record::bytes_for(edits_bytes) as u64)?;
        let offset_bytes = journal.used.get(&segment_id).copied().unwrap_or(0);
        let mut record = Record {
            place: LogPlace {
                store_id: self.store_id,
                segment_id,
                offset_bytes,
            },
            epoch: journal.epoch,
            sequence: journal.sequence + 1,
            synced_sequence: journal.synced_sequence,
            previous_checksum: journal.checksum,
            checksum: 0,
            record_bytes: 0,
            edits,
        };
        if record.sequence > COUNT_MAX {
            let reason = "the sequence is used up; copy the blocks to a new slab".to_owned();
            let field = "sequence";
            return Err(NvmeError::Invalid { field, reason });
        }
        let (mut bytes, mut checksum) = record.encode();
        journal.dirty.extend(touched);
        journal.dirty.insert(segment_id);
        let place = (segment_id, offset_bytes);
        let mut written = self.begin_record(place, &bytes);
        let mut replaced = Vec::new();
        if let Some(edits) = land() {
            // Whatever became of the first one: this one takes its place.
            drop(written.map(Transfer::wait));
            replaced = std::mem::replace(&mut record.edits, edits);
            (bytes, checksum) = record.encode();
            written = self.begin_record(place, &bytes);
        }
        let lose = |error: &NvmeError| {
            self.lose_edits(&record.edits, error);
            self.lose(replaced.iter().map(BlockEdit::key));
        };
        self.end_record(written, place, &bytes).inspect_err(lose)?;
        journal
            .used
            .insert(segment_id, offset_bytes + bytes.len() as u32);
        journal.last = Some(segment_id);
        journal.sequence = record.sequence;
        journal.checksum = checksum;
        self.counters.records.fetch_add(1, Ordering::Relaxed);
        if self.config.durable() {
            self.sync(journal).inspect_err(lose)?;
        }
        let freed = self.publish(record.edits);
        journal.freed.extend(freed);
        if self.config.durable() {
            self.slots.release(journal.freed.drain(..));
        }
        Ok(())
    }

    /// A log with room for a record: one that has to be synced anyway, if there is one. When the logs are full,
    /// or hold more than the tables would, the tables are written, and the logs begin anew.
    fn log_for(
        &self,
        journal: &mut Journal,
        touched: &BTreeSet<u32>,
        bytes: u64,
    ) -> Result<u32, NvmeError> {
        if let Some(id) = self.log_with_room(journal, touched.iter().copied(), bytes) {
            return Ok(id);
        }
        let used_bytes: u64 = journal.used.values().map(|&used| u64::from(used)).sum();
        let table_bytes = 64 * self.table.usage().blocks;
        if used_bytes < 2 * table_bytes {
            let others = journal.last.into_iter();
            let others = others.chain(self.slots.all().into_iter().map(|segment| segment.id));
            if let Some(id) = self.log_with_room(journal, others, bytes) {
                return Ok(id);
            }
        }
        self.write_tables(journal, false)?;
        let any = || {
            let all = self.slots.all().into_iter().map(|segment| segment.id);
            touched.iter().copied().chain(all)
        };
        let mut found = self.log_with_room(journal, any(), bytes);
        // If all segments are missing, what was in them can still be removed.
        if found.is_none() && self.grow(journal)? {
            found = self.log_with_room(journal, any(), bytes);
        }
        found.ok_or_else(|| NvmeError::Corrupt {
            structure: "log",
            location: self.volume.report().location,
            reason: "no segment is there to hold a record".to_owned(),
        })
    }

    fn log_with_room(
        &self,
        journal: &Journal,
        ids: impl IntoIterator<Item = u32>,
        bytes: u64,
    ) -> Option<u32> {
        ids.into_iter().find(|id| {
            let used = u64::from(journal.used.get(id).copied().unwrap_or(0));
            let is_there = self.slots.get(*id).is_some_and(|it| it.file.is_some());
            is_there && used + bytes <= self.geometry.log_bytes
        })
    }

    /// Lets a record go to its log.
    fn begin_record(
        &self,
        (segment_id, offset_bytes): (u32, u32),
        bytes: &[u8],
    ) -> Result<Transfer<BufferMut>, NvmeError> {
        let file = self.file_of(segment_id)?;
        let at = self.geometry.log_offset_bytes() + u64::from(offset_bytes);
        Ok(file.write(at, pages_of(bytes)?))
    }

    fn end_record(
        &self,
        written: Result<Transfer<BufferMut>, NvmeError>,
        place: (u32, u32),
        bytes: &[u8],
    ) -> Result<(), NvmeError> {
        if written?.wait().is_ok() {
            return Ok(());
        }
        // The same bytes in the same place: whatever the first attempt left, this one makes whole.
        self.begin_record(place, bytes)?.wait()?;
        Ok(())
    }

    fn file_of(&self, segment_id: u32) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let segment = self.slots.get(segment_id);
        let file = segment.and_then(|segment| segment.file.clone());
        file.ok_or_else(|| NvmeError::FileNotFound {
            path: blocks_name(segment_id)
                .map(|name| name.to_string())
                .unwrap_or_default(),
        })
    }

    /// Makes everything durable that was written, and frees what waited for that.
    pub(super) fn sync(&self, journal: &mut Journal) -> Result<(), NvmeError> {
        let mut syncs: Vec<Transfer<()>> = Vec::with_capacity(journal.dirty.len());
        for &id in &journal.dirty {
            syncs.push(self.file_of(id)?.sync()); // mutant: slab-no-fdatasync
        }
        let mut outcome = Ok(());
        for sync in syncs {
            if let Err(failure) = sync.wait() {
                outcome = Err(NvmeError::from(failure));
            }
        }
        self.counters
            .syncs
            .fetch_add(journal.dirty.len() as u64, Ordering::Relaxed);
        outcome.inspect_err(|error| self.poison(error))?;
        journal.dirty.clear();
        journal.synced_sequence = journal.sequence;
        self.slots.release(journal.freed.drain(..));
        Ok(())
    }

    /// Changes the table; the slots that nothing points at any more come back.
    fn publish(&self, edits: Vec<BlockEdit>) -> Vec<SlotId> {
        let before = edits.into_iter().filter_map(|edit| match edit {
            BlockEdit::Put(key, place) => self.table.insert(key, place),
            BlockEdit::Remove(key) => self.table.remove(key),
        });
        before
            .map(|place| SlotId {
                segment_id: place.segment_id,
                slot: place.slot,
            })
            .collect()
    }

    /// Makes the next segment, durably; `false` if the capacity allows none.
    pub(super) fn grow(&self, journal: &mut Journal) -> Result<bool, NvmeError> {
        // One that is missing has neither room nor a place on the disk: another may be made for it.
        if self.slots.usable_count() >= self.segments_max {
            return Ok(false);
        }
        let id = journal.segment_id_next;
        let name = blocks_name(id)?;
        // A number is never used twice, whatever becomes of the file.
        journal.segment_id_next = id.checked_add(1).ok_or_else(|| NvmeError::Invalid {
            field: "segment id",
            reason: "all are used up; copy the blocks to a new slab".to_owned(),
        })?;
        let file = self.volume.create(&name, self.geometry.segment_bytes)?;
        let durable = self.write_new_segment(&*file, id).and_then(|()| {
            // The first commit's sync would do; here nobody waits for what the file system has to note.
            file.sync().wait()?;
            self.volume.sync_directory()?; // mutant: slab-no-dirsync
            Ok(())
        });
        if let Err(error) = durable {
            // Nothing was acknowledged on this file; recovery would remove it as well.
            drop(self.volume.remove(&name));
            return Err(error);
        }
        self.slots.add(id, Some(file), self.geometry.slots() as u32);
        self.counters.segments_made.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    /// The log is written full of zeros, so that no record is the first write of its place.
    fn write_new_segment(&self, file: &dyn VolumeFile, id: u32) -> Result<(), NvmeError> {
        let zeros = aligned_buffer(self.geometry.log_bytes as usize)?;
        file.write(self.geometry.log_offset_bytes(), zeros).wait()?;
        let header = self.geometry.segment_header(self.store_id, id);
        file.write(0, pages_of(&header)?).wait()?;
        Ok(())
    }
}

/// Bytes of a group's changes, or more.
fn edits_bytes_max(group: &[Ready]) -> usize {
    let bytes = group.iter().map(|ready| match ready {
        Ready::Put(put) => {
            let items = put.items.iter();
            items
                .map(|it| BlockEdit::put_bytes(it.meta.as_slice().len()))
                .sum()
        }
        Ready::Remove(remove) => remove.keys.len() * BlockEdit::put_bytes(0),
    });
    bytes.sum()
}

fn fail_from(group: &mut [Ready], first: usize, error: &ContractError) {
    for ready in group.iter_mut().skip(first) {
        match ready {
            Ready::Put(job) => job.fail(error),
            Ready::Remove(job) => job.error = Some(error.clone()),
        }
    }
}

/// Fails everything from an item of a job on.
fn fail_item_from(group: &mut [Ready], job: usize, item: usize, error: &ContractError) {
    fail_from(group, job + 1, error);
    match group.get_mut(job) {
        Some(Ready::Put(put)) => {
            for it in put.items.iter_mut().skip(item) {
                if let ItemState::Placed(_) = it.state {
                    it.state = ItemState::Failed(error.clone());
                }
            }
        }
        Some(Ready::Remove(remove)) => remove.error = Some(error.clone()),
        None => {}
    }
}
