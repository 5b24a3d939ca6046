//! Reading the tables.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::Shared;
use super::commit::aligned_buffer;
use super::create::damaged;
use super::recovery::SlabRecovery;
use super::tables::TABLE_NAMES;
use crate::format::slab::{BlockEdit, BlockPlace, CHUNK_BYTES, TableHeader, chunk_entries};
use crate::format::{FormatError, PAGE_BYTES, VERSION, crc32c_of};
use crate::{FileName, NvmeError, VolumeFile};

/// Chunks that are read at once.
const CHUNKS_IN_FLIGHT: u64 = 16;

/// The table that a slab starts from; its blocks are in memory.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) header: TableHeader,
    pub(super) segments: BTreeSet<u32>,
    pub(super) edits: Vec<BlockEdit>,
    /// Which table is to be overwritten first: the one whose twin is durable for certain.
    pub(super) overwrite_first: usize,
    /// Whether both tables are of the same generation.
    pub(super) is_twice: bool,
    /// Length of the shorter one's file.
    pub(super) len_bytes: u64,
}

/// Why a table can't be used, or that the device failed.
enum Unusable {
    Damaged(String),
    Failed(NvmeError),
}

impl From<NvmeError> for Unusable {
    fn from(error: NvmeError) -> Self {
        Self::Failed(error)
    }
}

impl From<FormatError> for Unusable {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error.reason())
    }
}

/// A table whose header is right.
struct Candidate {
    index: usize,
    file: Arc<dyn VolumeFile>,
    header: TableHeader,
}

/// The newer of the tables that are whole.
pub(super) fn load_tables(shared: &Shared, report: &mut SlabRecovery) -> Result<Loaded, NvmeError> {
    let mut candidates = Vec::new();
    let mut len_bytes = u64::MAX;
    for (index, name) in TABLE_NAMES.into_iter().enumerate() {
        match read_header(shared, index, name) {
            Ok(candidate) => {
                len_bytes = len_bytes.min(candidate.file.len_bytes()?);
                candidates.push(candidate);
            }
            Err(Unusable::Failed(error)) => return Err(error),
            Err(Unusable::Damaged(reason)) => note(report, index, reason),
        }
    }
    // Of two of the same generation, the one that was written first is durable for certain.
    candidates.sort_by_key(|it| (Reverse(it.header.generation), it.header.second));
    let is_twice = matches!(&candidates[..], [a, b] if a.header.generation == b.header.generation);
    let mut candidates = candidates.into_iter();
    while let Some(base) = candidates.next() {
        match read_body(shared, &base) {
            Ok((segments, edits)) => {
                let twin = candidates.next();
                let overwrite_first = match twin {
                    Some(twin) if is_older_and_whole(shared, &twin, &base)? => base.index,
                    _ => 1 - base.index,
                };
                return Ok(Loaded {
                    header: base.header,
                    segments,
                    edits,
                    overwrite_first,
                    is_twice,
                    len_bytes,
                });
            }
            Err(Unusable::Failed(error)) => return Err(error),
            Err(Unusable::Damaged(reason)) => note(report, base.index, reason),
        }
    }
    let location = shared.volume.report().location;
    Err(NvmeError::Corrupt {
        structure: "block table",
        location: format!("{} of {location}", TABLE_NAMES.join(" and ")),
        reason: "neither is whole; make a new slab and store the blocks again".to_owned(),
    })
}

/// Whether the writer of `base` ended before it began the other one. Then `base` may not be durable, and the
/// other one, with the logs that follow it, says the same and is.
fn is_older_and_whole(
    shared: &Shared,
    twin: &Candidate,
    base: &Candidate,
) -> Result<bool, NvmeError> {
    if twin.header.generation == base.header.generation {
        return Ok(false);
    }
    match read_body(shared, twin) {
        Ok(_) => Ok(true),
        Err(Unusable::Damaged(_)) => Ok(false),
        Err(Unusable::Failed(error)) => Err(error),
    }
}

fn note(report: &mut SlabRecovery, index: usize, reason: String) {
    let location = TABLE_NAMES.get(index).copied().unwrap_or_default();
    report
        .damage
        .push(damaged("block table", location.to_owned(), reason));
}

fn read_header(shared: &Shared, index: usize, name: &str) -> Result<Candidate, Unusable> {
    let file = match shared.volume.open(&FileName::new(name)?) {
        Ok(file) => file,
        Err(NvmeError::FileNotFound { .. }) => {
            return Err(Unusable::Damaged("the file is missing".to_owned()));
        }
        Err(error) => return Err(error.into()),
    };
    if file.len_bytes()? < PAGE_BYTES as u64 {
        return Err(Unusable::Damaged("the file is too short".to_owned()));
    }
    let page = file.read_blocking(0, aligned_buffer(PAGE_BYTES)?);
    let header = match TableHeader::decode(&page.map_err(NvmeError::from)?) {
        Ok(header) => header,
        Err(FormatError::NewerVersion(found)) => {
            return Err(Unusable::Failed(NvmeError::NewerVersion {
                path: shared.volume.report().location,
                structure: "block table",
                found,
                supported: VERSION,
            }));
        }
        Err(error) => return Err(error.into()),
    };
    if header.store_id != shared.store_id {
        return Err(Unusable::Damaged("it belongs to another slab".to_owned()));
    }
    Ok(Candidate {
        index,
        file,
        header,
    })
}

/// Segments and blocks of a table.
fn read_body(
    shared: &Shared,
    candidate: &Candidate,
) -> Result<(BTreeSet<u32>, Vec<BlockEdit>), Unusable> {
    let Candidate { file, header, .. } = candidate;
    let chunks_max = file.len_bytes()?.saturating_sub(PAGE_BYTES as u64) / CHUNK_BYTES as u64;
    if header.chunk_count > chunks_max {
        return Err(Unusable::Damaged("it is longer than its file".to_owned()));
    }
    let mut body = Body::default();
    let mut index = 0;
    while index < header.chunk_count {
        let end = header.chunk_count.min(index + CHUNKS_IN_FLIGHT);
        let mut reads = Vec::new();
        for chunk in index..end {
            let at = PAGE_BYTES as u64 + chunk * CHUNK_BYTES as u64;
            reads.push(file.read(at, aligned_buffer(CHUNK_BYTES)?));
        }
        for (chunk, read) in (index..end).zip(reads) {
            let bytes = read.wait().map_err(NvmeError::from)?;
            let (used, checksum) = chunk_entries(header, chunk, &bytes)?;
            body.take(header, used, checksum)?;
        }
        index = end;
    }
    body.check(header)?;
    if !shared.fits(&body.segments, &body.edits) {
        return Err(Unusable::Damaged("a block is where none can be".to_owned()));
    }
    Ok((body.segments, body.edits))
}

#[derive(Default)]
struct Body {
    segments: BTreeSet<u32>,
    segments_seen: u32,
    edits: Vec<BlockEdit>,
    checksums: Vec<u8>,
}

impl Body {
    fn take(
        &mut self,
        header: &TableHeader,
        mut used: &[u8],
        checksum: u32,
    ) -> Result<(), FormatError> {
        self.checksums.extend_from_slice(&checksum.to_le_bytes());
        while self.segments_seen < header.segment_count
            && let Some((id, rest)) = used.split_first_chunk::<8>()
        {
            let id = u32::try_from(u64::from_le_bytes(*id));
            let id = id.map_err(|_| FormatError::Damaged("a segment id is out of range"))?;
            self.segments.insert(id);
            self.segments_seen += 1;
            used = rest;
        }
        while !used.is_empty() {
            self.edits.push(BlockEdit::decode(&mut used)?);
        }
        Ok(())
    }

    fn check(&self, header: &TableHeader) -> Result<(), FormatError> {
        if crc32c_of([self.checksums.as_slice()]) != header.body_checksum {
            return Err(FormatError::Damaged("its chunks are not of one table"));
        }
        let counted = self.segments.len() as u64 == u64::from(header.segment_count)
            && self.edits.len() as u64 == header.entry_count
            && self
                .segments
                .last()
                .is_none_or(|id| *id < header.segment_id_next);
        if counted {
            Ok(())
        } else {
            Err(FormatError::Damaged("its counts are wrong"))
        }
    }
}

impl Shared {
    /// Whether every block is in a slot of one of these segments, and no two in one.
    fn fits(&self, segments: &BTreeSet<u32>, edits: &[BlockEdit]) -> bool {
        let mut slots = HashSet::with_capacity(edits.len());
        let mut keys = HashSet::with_capacity(edits.len());
        edits.iter().all(|edit| match edit {
            BlockEdit::Put(key, place) => {
                segments.contains(&place.segment_id)
                    && self.is_place(place)
                    && slots.insert((place.segment_id, place.slot))
                    && keys.insert(*key)
            }
            BlockEdit::Remove(_) => false,
        })
    }

    /// Whether a block can be there, and so long.
    pub(super) fn is_place(&self, place: &BlockPlace) -> bool {
        u64::from(place.slot) < self.geometry.slots()
            && place.payload_bytes > 0
            && u64::from(place.payload_bytes) <= self.geometry.block_bytes
    }

    /// Reads a table again, all of it; what is wrong with it.
    pub(super) fn check_table(&self, index: usize, name: &str) -> Result<(), String> {
        let checked = read_header(self, index, name)
            .and_then(|candidate| read_body(self, &candidate).map(|_| ()));
        checked.map_err(|unusable| match unusable {
            Unusable::Damaged(reason) => reason,
            Unusable::Failed(error) => error.to_string(),
        })
    }
}
