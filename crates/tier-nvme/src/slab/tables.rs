//! Writing the table of blocks, twice.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use core_view::BufferMut;
use core_view::contract::Transfer;

use super::Shared;
use super::commit::pages_of;
use super::journal::Journal;
use super::slots::BlockSegment;
use crate::format::PAGE_BYTES;
use crate::format::slab::{CHUNK_BYTES, ChunkWriter, TableHeader, table_file_bytes};
use crate::{FileName, NvmeError, Volume, VolumeFile};

pub(super) const TABLE_NAMES: [&str; 2] = ["TABLE-A", "TABLE-B"];
/// What the names of unfinished files end with.
pub(super) const UNFINISHED_SUFFIX: &str = ".new";

/// Chunks on their way at once.
const CHUNKS_IN_FLIGHT: usize = 16;

/// A table's file that is being written.
struct TableFile {
    file: Arc<dyn VolumeFile>,
    offset_bytes: u64,
    writes: VecDeque<Transfer<BufferMut>>,
}

impl TableFile {
    fn push(&mut self, chunk: Option<Vec<u8>>) -> Result<(), NvmeError> {
        let Some(chunk) = chunk else { return Ok(()) };
        if self.writes.len() >= CHUNKS_IN_FLIGHT
            && let Some(oldest) = self.writes.pop_front()
        {
            oldest.wait()?;
        }
        let write = self.file.write(self.offset_bytes, pages_of(&chunk)?);
        self.writes.push_back(write);
        self.offset_bytes += CHUNK_BYTES as u64;
        Ok(())
    }

    fn finish(mut self, header: &TableHeader) -> Result<(), NvmeError> {
        let header = self.file.write(0, pages_of(&header.encode())?);
        self.writes.push_back(header);
        for write in self.writes.drain(..) {
            write.wait()?;
        }
        Ok(())
    }
}

/// Creates a file under a name that says that it is not finished.
pub(super) fn create_unfinished(
    volume: &dyn Volume,
    target: &FileName,
    len_bytes: u64,
) -> Result<(FileName, Arc<dyn VolumeFile>), NvmeError> {
    let temporary = FileName::new(format!("{target}{UNFINISHED_SUFFIX}"))?;
    match volume.remove(&temporary) {
        Ok(()) | Err(NvmeError::FileNotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let file = volume.create(&temporary, len_bytes)?;
    Ok((temporary, file))
}

impl Shared {
    /// Bytes that a table's file has to have.
    pub(super) fn table_bytes(&self) -> u64 {
        let segments = self.segments_max.max(self.slots.count());
        table_file_bytes(segments, self.geometry.slots())
    }

    /// Writes both tables, each synced before the other is begun, and begins the logs anew.
    ///
    /// The one that is written first is the newer one, or the one that was written second: its twin is
    /// durable for certain, and the logs that follow that one are not touched before both are.
    pub(super) fn write_tables(&self, journal: &mut Journal, clean: bool) -> Result<(), NvmeError> {
        self.sync(journal)?;
        let first = journal.first_table;
        let generation = journal.epoch + 1;
        for (second, table) in [(false, first), (true, 1 - first)] {
            let header = TableHeader {
                store_id: self.store_id,
                clean,
                second,
                generation,
                sequence: journal.sequence,
                record_checksum: journal.checksum,
                segment_id_next: journal.segment_id_next,
                segment_count: 0,
                entry_count: 0,
                chunk_count: 0,
                body_checksum: 0,
            };
            self.write_table(TABLE_NAMES[table % 2], header)
                .inspect_err(|error| self.poison(error))?;
        }
        journal.epoch = generation;
        journal.used.clear();
        journal.first_table = 1 - first;
        self.counters.tables_written.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write_table(&self, name: &str, header: TableHeader) -> Result<(), NvmeError> {
        let name = FileName::new(name)?;
        let (unfinished, file) = self.table_file(&name)?;
        if self.fill_table(&file, header.clone()).is_err() {
            // Whatever the first attempt left, the same bytes in the same places make it whole.
            self.fill_table(&file, header)?;
        }
        file.sync().wait()?; // mutant: slab-no-table-sync
        if let Some(temporary) = unfinished {
            self.volume.rename(&temporary, &name)?;
            self.volume.sync_directory()?;
        }
        Ok(())
    }

    /// The file of a table, and its name for now if it had to be made.
    fn table_file(
        &self,
        name: &FileName,
    ) -> Result<(Option<FileName>, Arc<dyn VolumeFile>), NvmeError> {
        let len_bytes = self.table_bytes();
        match self.volume.open(name) {
            Ok(file) if file.len_bytes()? >= len_bytes => return Ok((None, file)),
            Ok(_) | Err(NvmeError::FileNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let (temporary, file) = create_unfinished(&*self.volume, name, len_bytes)?;
        Ok((Some(temporary), file))
    }

    /// All segments but those that are missing and have no block left: nobody will look for them again.
    fn segments_to_list(&self) -> Vec<Arc<BlockSegment>> {
        let mut segments = self.slots.all();
        if segments.iter().all(|segment| segment.file.is_some()) {
            return segments;
        }
        let mut used = BTreeSet::new();
        let visited: Result<(), Infallible> = self.table.for_each(|_, place| {
            used.insert(place.segment_id);
            Ok(())
        });
        let Ok(()) = visited;
        segments.retain(|segment| segment.file.is_some() || used.contains(&segment.id));
        segments
    }

    fn fill_table(
        &self,
        file: &Arc<dyn VolumeFile>,
        mut header: TableHeader,
    ) -> Result<(), NvmeError> {
        let mut target = TableFile {
            file: Arc::clone(file),
            offset_bytes: PAGE_BYTES as u64,
            writes: VecDeque::new(),
        };
        let mut writer = ChunkWriter::new(header.store_id, header.generation);
        for segment in self.segments_to_list() {
            header.segment_count += 1;
            target.push(writer.segment(segment.id))?;
        }
        self.table.for_each(|key, place| {
            header.entry_count += 1;
            target.push(writer.block(key, place))
        })?;
        let (last, chunk_count, body_checksum) = writer.finish();
        target.push(last)?;
        header.chunk_count = chunk_count;
        header.body_checksum = body_checksum;
        target.finish(&header)
    }
}
