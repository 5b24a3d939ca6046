//! The table of blocks: every block of a slab at one moment.

use core_view::contract::BlockKey;

use super::super::bytes::{Fields, open_page, seal_page};
use super::super::{COUNT_MAX, FormatError, PAGE_BYTES, StoreId, VERSION, crc32c_of};
use super::entry::{BlockEdit, BlockPlace, EDIT_BYTES_MAX, encode_put};

const MAGIC: &[u8; 8] = b"STEPSLTB";
const CHUNK_HEADER_BYTES: usize = 8;
const FLAG_CLEAN: u32 = 1;
const FLAG_SECOND: u32 = 2;

/// Unit of a table's body in bytes.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// Bytes of a table's file that has room for `segments` segments of `slots` slots each, whatever their
/// metadata.
pub(crate) fn table_file_bytes(segments: u64, slots: u64) -> u64 {
    let room = CHUNK_BYTES - CHUNK_HEADER_BYTES;
    let chunks_for = |count: u64, item: usize| count.div_ceil((room / item) as u64);
    let chunks =
        chunks_for(segments, 8) + chunks_for(segments.saturating_mul(slots), EDIT_BYTES_MAX);
    (PAGE_BYTES as u64).saturating_add(chunks.saturating_mul(CHUNK_BYTES as u64))
}

/// Page 0 of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableHeader {
    pub(crate) store_id: StoreId,
    /// Written by a clean close.
    pub(crate) clean: bool,
    /// Written after its twin of the same generation was synced.
    pub(crate) second: bool,
    pub(crate) generation: u64,
    /// Newest sequence that the table contains.
    pub(crate) sequence: u64,
    /// Checksum of that record.
    pub(crate) record_checksum: u32,
    pub(crate) segment_id_next: u32,
    pub(crate) segment_count: u32,
    pub(crate) entry_count: u64,
    pub(crate) chunk_count: u64,
    /// Over the checksums of all chunks in order.
    pub(crate) body_checksum: u32,
}

impl TableHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flags = u32::from(self.clean) * FLAG_CLEAN + u32::from(self.second) * FLAG_SECOND;
        let mut fields = MAGIC.to_vec();
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&flags.to_le_bytes());
        fields.extend_from_slice(&self.store_id.0);
        fields.extend_from_slice(&self.generation.to_le_bytes());
        fields.extend_from_slice(&self.sequence.to_le_bytes());
        fields.extend_from_slice(&self.record_checksum.to_le_bytes());
        fields.extend_from_slice(&self.segment_id_next.to_le_bytes());
        fields.extend_from_slice(&self.entry_count.to_le_bytes());
        fields.extend_from_slice(&self.chunk_count.to_le_bytes());
        fields.extend_from_slice(&self.segment_count.to_le_bytes());
        fields.extend_from_slice(&self.body_checksum.to_le_bytes());
        seal_page(fields)
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(open_page(page)?);
        fields.magic(MAGIC)?;
        fields.version()?;
        let flags = fields.u32()?;
        let header = Self {
            store_id: StoreId(fields.array()?),
            clean: flags & FLAG_CLEAN != 0,
            second: flags & FLAG_SECOND != 0,
            generation: fields.u64()?,
            sequence: fields.u64()?,
            record_checksum: fields.u32()?,
            segment_id_next: fields.u32()?,
            entry_count: fields.u64()?,
            chunk_count: fields.u64()?,
            segment_count: fields.u32()?,
            body_checksum: fields.u32()?,
        };
        if header.generation > COUNT_MAX || header.sequence > COUNT_MAX {
            return Err(FormatError::Damaged("its numbers are out of range"));
        }
        Ok(header)
    }
}

/// Cuts a table's body into chunks, none of which ends inside an item.
#[derive(Debug)]
pub(crate) struct ChunkWriter {
    store_id: StoreId,
    generation: u64,
    chunk: Vec<u8>,
    checksums: Vec<u8>,
}

impl ChunkWriter {
    pub(crate) fn new(store_id: StoreId, generation: u64) -> Self {
        Self {
            store_id,
            generation,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            checksums: Vec::new(),
        }
    }

    /// Appends a segment's id; a chunk that is full comes back.
    pub(crate) fn segment(&mut self, segment_id: u32) -> Option<Vec<u8>> {
        let full = self.make_room(8);
        self.chunk
            .extend_from_slice(&u64::from(segment_id).to_le_bytes());
        full
    }

    /// Appends a block; a chunk that is full comes back.
    pub(crate) fn block(&mut self, key: BlockKey, place: &BlockPlace) -> Option<Vec<u8>> {
        let full = self.make_room(BlockEdit::put_bytes(place.meta.len()));
        encode_put(key, place, &mut self.chunk);
        full
    }

    /// The last chunk, if there is one, the number of chunks, and the checksum over them.
    pub(crate) fn finish(mut self) -> (Option<Vec<u8>>, u64, u32) {
        let last = (!self.chunk.is_empty()).then(|| self.take());
        let count = self.checksums.len() as u64 / 4;
        (last, count, crc32c_of([self.checksums.as_slice()]))
    }

    fn make_room(&mut self, item_bytes: usize) -> Option<Vec<u8>> {
        let fits = CHUNK_HEADER_BYTES + self.chunk.len() + item_bytes <= CHUNK_BYTES;
        (!fits).then(|| self.take())
    }

    fn take(&mut self) -> Vec<u8> {
        let index = self.checksums.len() as u64 / 4;
        let checksum = chunk_checksum(self.store_id, self.generation, index, &self.chunk);
        self.checksums.extend_from_slice(&checksum.to_le_bytes());
        let mut bytes = Vec::with_capacity(CHUNK_BYTES);
        bytes.extend_from_slice(&(self.chunk.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.append(&mut self.chunk);
        bytes.resize(CHUNK_BYTES, 0);
        bytes
    }
}

fn chunk_checksum(store_id: StoreId, generation: u64, index: u64, used: &[u8]) -> u32 {
    crc32c_of([
        &store_id.0[..],
        &generation.to_le_bytes(),
        &index.to_le_bytes(),
        used,
    ])
}

/// The used bytes of a chunk, and its checksum.
pub(crate) fn chunk_entries<'a>(
    header: &TableHeader,
    index: u64,
    chunk: &'a [u8],
) -> Result<(&'a [u8], u32), FormatError> {
    let mut fields = Fields::new(chunk);
    let used_bytes = fields.u32()? as usize;
    let checksum = fields.u32()?;
    let used = fields.take(used_bytes)?;
    if chunk_checksum(header.store_id, header.generation, index, used) != checksum {
        // mutant: slab-no-table-check
        return Err(FormatError::Damaged("the checksum of a chunk is wrong"));
    }
    Ok((used, checksum))
}
