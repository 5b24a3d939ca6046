//! A snapshot of the index.

use super::bytes::{Fields, open_page, seal_page};
use super::{
    COUNT_MAX, Encoding, FormatError, KEY_BYTES_MAX, PAGE_BYTES, StoreId, VERSION, crc32c_of,
    page_ceil,
};

const MAGIC: &[u8; 8] = b"STEPCKPT";
const FLAG_CLEAN: u32 = 1;
/// Most bytes of a block of the body.
pub(crate) const BLOCK_BYTES_MAX: usize = 256 << 10;
/// More than any record takes.
const RECORD_BYTES_MAX: usize = 2 << 10;
const BLOCK_HEADER_BYTES: usize = 8;

/// The first page of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointHeader {
    pub(crate) clean: bool,
    pub(crate) store_id: StoreId,
    pub(crate) generation: u64,
    /// Sequence of the newest batch contained.
    pub(crate) sequence: u64,
    /// Checksum field of that batch.
    pub(crate) checksum: u32,
    pub(crate) segment_count: u32,
    pub(crate) log_segment_id: u64,
    pub(crate) log_offset_bytes: u64,
    pub(crate) entry_count: u64,
    pub(crate) body_bytes: u64,
    /// Newest sequence that was synced when the body was written: what is newer than `sequence` up to here
    /// may be what the body leaves out.
    pub(crate) synced_sequence: u64,
}

impl CheckpointHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut fields = MAGIC.to_vec();
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&(if self.clean { FLAG_CLEAN } else { 0 }).to_le_bytes());
        fields.extend_from_slice(&self.store_id.0);
        fields.extend_from_slice(&self.generation.to_le_bytes());
        fields.extend_from_slice(&self.sequence.to_le_bytes());
        fields.extend_from_slice(&self.checksum.to_le_bytes());
        fields.extend_from_slice(&self.segment_count.to_le_bytes());
        fields.extend_from_slice(&self.log_segment_id.to_le_bytes());
        fields.extend_from_slice(&self.log_offset_bytes.to_le_bytes());
        fields.extend_from_slice(&self.entry_count.to_le_bytes());
        fields.extend_from_slice(&self.body_bytes.to_le_bytes());
        fields.extend_from_slice(&self.synced_sequence.to_le_bytes());
        seal_page(fields)
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(open_page(page)?);
        fields.magic(MAGIC)?;
        fields.version()?;
        let flags = fields.u32()?;
        let header = Self {
            clean: flags & FLAG_CLEAN != 0,
            store_id: StoreId(fields.array()?),
            generation: fields.u64()?,
            sequence: fields.u64()?,
            checksum: fields.u32()?,
            segment_count: fields.u32()?,
            log_segment_id: fields.u64()?,
            log_offset_bytes: fields.u64()?,
            entry_count: fields.u64()?,
            body_bytes: fields.u64()?,
            synced_sequence: fields.u64()?,
        };
        Ok(header)
    }
}

/// One segment in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    pub(crate) segment_id: u64,
    /// Where its last batch ends.
    pub(crate) used_bytes: u64,
}

impl SegmentRecord {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn encode(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.segment_id.to_le_bytes());
        body.extend_from_slice(&self.used_bytes.to_le_bytes());
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(bytes);
        Ok(Self {
            segment_id: fields.u64()?,
            used_bytes: fields.u64()?,
        })
    }
}

/// One key in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexRecord<'a> {
    pub(crate) segment_id: u64,
    pub(crate) offset_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) raw_bytes: u64,
    pub(crate) sequence: u64,
    pub(crate) checksum: u32,
    pub(crate) encoding: Encoding,
    pub(crate) key: &'a [u8],
}

impl<'a> IndexRecord<'a> {
    const FIXED_BYTES: usize = 48;
    const KEY_BYTES_AT: usize = 44;

    /// Bytes that the record of a key takes.
    pub(crate) fn encoded_bytes(key_bytes: usize) -> u64 {
        (Self::FIXED_BYTES + key_bytes) as u64
    }

    pub(crate) fn encode(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.segment_id.to_le_bytes());
        body.extend_from_slice(&self.offset_bytes.to_le_bytes());
        body.extend_from_slice(&self.stored_bytes.to_le_bytes());
        body.extend_from_slice(&self.raw_bytes.to_le_bytes());
        body.extend_from_slice(&self.sequence.to_le_bytes());
        body.extend_from_slice(&self.checksum.to_le_bytes());
        body.extend_from_slice(&(self.key.len() as u16).to_le_bytes());
        body.extend_from_slice(&[self.encoding.to_byte(), 0]);
        body.extend_from_slice(self.key);
    }

    /// Most records that a body of so many bytes can have.
    fn count_max(body_bytes: u64) -> u64 {
        body_bytes / Self::FIXED_BYTES as u64
    }

    /// Whether such a value can be in the segment.
    fn is_within(&self, segment: &SegmentRecord) -> bool {
        let end = self.offset_bytes.checked_add(self.stored_bytes);
        self.offset_bytes >= PAGE_BYTES as u64 && end.is_some_and(|end| end <= segment.used_bytes)
    }

    /// How many records `bytes` begins with, and how long they are together.
    pub(crate) fn whole(bytes: &[u8]) -> (u64, usize) {
        let (mut count, mut end) = (0, 0);
        while let Some(key_bytes) = bytes
            .get(end + Self::KEY_BYTES_AT..)
            .and_then(|rest| rest.first_chunk::<2>())
        {
            let record_end = end + Self::FIXED_BYTES + usize::from(u16::from_le_bytes(*key_bytes));
            if record_end > bytes.len() {
                break;
            }
            (count, end) = (count + 1, record_end);
        }
        (count, end)
    }

    /// Takes a record off the front of `body`.
    pub(crate) fn decode(body: &mut &'a [u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(body);
        let segment_id = fields.u64()?;
        let offset_bytes = fields.u64()?;
        let stored_bytes = fields.u64()?;
        let raw_bytes = fields.u64()?;
        let sequence = fields.u64()?;
        let checksum = fields.u32()?;
        let key_bytes = usize::from(fields.u16()?);
        let encoding = fields.u8()?;
        fields.u8()?;
        if key_bytes == 0 || key_bytes > KEY_BYTES_MAX {
            return Err(FormatError::Damaged("a key's length is out of range"));
        }
        let encoding = Encoding::from_byte(encoding, stored_bytes, raw_bytes)?;
        let key = fields.take(key_bytes)?;
        *body = body
            .get(Self::FIXED_BYTES + key_bytes..)
            .unwrap_or_default();
        Ok(Self {
            segment_id,
            offset_bytes,
            stored_bytes,
            raw_bytes,
            sequence,
            checksum,
            encoding,
            key,
        })
    }
}

/// What a block's checksum covers in front of its bytes: a block of another store, another
/// generation or another place is not this one.
#[derive(Debug)]
struct BlockSeed([u8; 32]);

impl BlockSeed {
    fn new(store_id: StoreId, generation: u64) -> Self {
        let mut seed = [0; 32];
        let (id, rest) = seed.split_at_mut(16);
        id.copy_from_slice(&store_id.0);
        if let Some(field) = rest.first_chunk_mut::<8>() {
            *field = generation.to_le_bytes();
        }
        Self(seed)
    }

    /// The checksum of the next block.
    fn next(&mut self, block: &[u8]) -> u32 {
        let checksum = crc32c_of([self.0.as_slice(), block]);
        if let Some(index) = self.0.last_chunk_mut::<8>() {
            *index = (u64::from_le_bytes(*index) + 1).to_le_bytes();
        }
        checksum
    }
}

/// Cuts a body into checksummed blocks; the last page is padded.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    file: Vec<u8>,
    block: Vec<u8>,
    seed: BlockSeed,
    body_bytes: u64,
}

impl BlockWriter {
    /// Begins with a page's room for the header.
    pub(crate) fn new(store_id: StoreId, generation: u64) -> Self {
        let seed = BlockSeed::new(store_id, generation);
        Self {
            file: vec![0; PAGE_BYTES],
            block: Vec::with_capacity(BLOCK_BYTES_MAX + RECORD_BYTES_MAX),
            seed,
            body_bytes: 0,
        }
    }

    /// Adds what `encode` appends to the body.
    pub(crate) fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.block);
        while self.block.len() >= BLOCK_BYTES_MAX {
            self.end_block(BLOCK_BYTES_MAX);
        }
    }

    /// Ends a block of the first `len_bytes` that are there.
    fn end_block(&mut self, len_bytes: usize) {
        let block = self.block.get(..len_bytes).unwrap_or_default();
        let checksum = self.seed.next(block);
        self.file.reserve_exact(BLOCK_HEADER_BYTES + len_bytes);
        self.file
            .extend_from_slice(&(len_bytes as u32).to_le_bytes());
        self.file.extend_from_slice(&checksum.to_le_bytes());
        self.file.extend_from_slice(block);
        self.body_bytes += len_bytes as u64;
        self.block.drain(..len_bytes);
    }

    /// Bytes that are ready to be written.
    pub(crate) fn ready_bytes(&self) -> usize {
        self.file.len()
    }

    /// Takes whole pages that are ready, from the front of the file on; the first is the header's room.
    pub(crate) fn take_pages(&mut self) -> Vec<u8> {
        let rest = self
            .file
            .split_off(self.file.len() - self.file.len() % PAGE_BYTES);
        std::mem::replace(&mut self.file, rest)
    }

    /// Ends the body: the pages that were not taken yet, and the size of the body.
    pub(crate) fn end(mut self) -> (Vec<u8>, u64) {
        if !self.block.is_empty() {
            self.end_block(self.block.len());
        }
        self.file
            .resize(self.file.len().next_multiple_of(PAGE_BYTES), 0);
        (self.file, self.body_bytes)
    }

    /// The file's bytes, whole pages, with the header that `header` makes of the body's size.
    pub(crate) fn finish(self, header: impl FnOnce(u64) -> CheckpointHeader) -> Vec<u8> {
        let (mut file, body_bytes) = self.end();
        let page = header(body_bytes).encode();
        if let Some(room) = file.get_mut(..PAGE_BYTES) {
            room.copy_from_slice(&page);
        }
        file
    }
}

/// Bytes of the whole file of a checkpoint whose body has `body_bytes`, if there can be that many.
pub(crate) fn checkpoint_file_bytes(body_bytes: u64) -> Option<u64> {
    let block_count = body_bytes.div_ceil(BLOCK_BYTES_MAX as u64);
    let blocks_bytes = body_bytes.checked_add(block_count * BLOCK_HEADER_BYTES as u64)?;
    page_ceil(blocks_bytes)?.checked_add(PAGE_BYTES as u64)
}

impl CheckpointHeader {
    /// Bytes of the whole file, if there can be that many.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        checkpoint_file_bytes(self.body_bytes)
    }

    /// Checks what the header alone tells.
    ///
    /// # Errors
    /// A number that can't be.
    pub(crate) fn check_numbers(&self, segment_bytes: u64) -> Result<(), FormatError> {
        let highest = self
            .generation
            .max(self.synced_sequence)
            .max(self.log_segment_id);
        if highest > COUNT_MAX
            || self.sequence > self.synced_sequence
            || !is_in_segment(self.log_offset_bytes, segment_bytes)
            || self.entry_count > IndexRecord::count_max(self.body_bytes)
            || self.segment_record_bytes() > self.body_bytes
        {
            return Err(FormatError::Damaged("a number is out of range"));
        }
        Ok(())
    }

    /// Bytes of the body in front of the entries.
    pub(crate) fn segment_record_bytes(&self) -> u64 {
        u64::from(self.segment_count) * SegmentRecord::BYTES as u64
    }

    /// Checks that the body has what the header counts, and that whatever the two point at can be there.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn check(&self, mut body: &[u8], segment_bytes: u64) -> Result<(), FormatError> {
        self.check_numbers(segment_bytes)?;
        let segments = SegmentTable::decode(self, &mut body, segment_bytes)?;
        for _ in 0..self.entry_count {
            segments.check(&IndexRecord::decode(&mut body)?)?;
        }
        if !body.is_empty() {
            return Err(FormatError::Damaged(LEFT_OVER));
        }
        Ok(())
    }

    /// The body, put together from the blocks of the whole file, each of them checked.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn body(&self, file: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut rest = file.get(PAGE_BYTES..).unwrap_or_default();
        let mut blocks = BlockReader::new(self);
        let mut body = Vec::new();
        while let Some(len_bytes) = blocks.next_bytes(rest)? {
            let block = blocks.open(rest.get(..len_bytes).unwrap_or(rest))?;
            body.extend_from_slice(block);
            rest = rest.get(len_bytes..).unwrap_or_default();
        }
        Ok(body)
    }
}

/// What is wrong with a body that has more than its header counts.
pub(crate) const LEFT_OVER: &str = "the body is longer than its parts";

fn is_in_segment(offset_bytes: u64, segment_bytes: u64) -> bool {
    offset_bytes.is_multiple_of(PAGE_BYTES as u64)
        && (PAGE_BYTES as u64..=segment_bytes).contains(&offset_bytes)
}

/// Takes the blocks of a body one after the other.
#[derive(Debug)]
pub(crate) struct BlockReader {
    seed: BlockSeed,
    left_bytes: u64,
}

impl BlockReader {
    /// Bytes in front of each block: its length and its checksum.
    pub(crate) const HEADER_BYTES: usize = BLOCK_HEADER_BYTES;

    pub(crate) fn new(header: &CheckpointHeader) -> Self {
        Self {
            seed: BlockSeed::new(header.store_id, header.generation),
            left_bytes: header.body_bytes,
        }
    }

    /// Bytes of the next block with what is in front of it, which `start` begins with; `None` behind the last.
    pub(crate) fn next_bytes(&self, start: &[u8]) -> Result<Option<usize>, FormatError> {
        if self.left_bytes == 0 {
            return Ok(None);
        }
        let len_bytes = Fields::new(start).u32()? as usize;
        if len_bytes == 0 || len_bytes > BLOCK_BYTES_MAX || len_bytes as u64 > self.left_bytes {
            return Err(FormatError::Damaged("a block's length is out of range"));
        }
        Ok(Some(BLOCK_HEADER_BYTES + len_bytes))
    }

    /// The next block, of which `bytes` are all with what is in front of it, once its checksum is right.
    pub(crate) fn open<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FormatError> {
        let mut fields = Fields::new(bytes);
        let len_bytes = fields.u32()? as usize;
        let checksum = fields.u32()?;
        let block = fields.take(len_bytes)?;
        if self.seed.next(block) != checksum {
            return Err(FormatError::Damaged("a block's checksum is wrong"));
        }
        self.left_bytes = self.left_bytes.saturating_sub(len_bytes as u64);
        Ok(block)
    }
}

/// The segments of a checkpoint, in rising order.
#[derive(Debug)]
pub(crate) struct SegmentTable(Vec<SegmentRecord>);

impl SegmentTable {
    /// Takes the segments off the front of a body.
    pub(crate) fn decode(
        header: &CheckpointHeader,
        body: &mut &[u8],
        segment_bytes: u64,
    ) -> Result<Self, FormatError> {
        let mut segments: Vec<SegmentRecord> = Vec::new();
        for _ in 0..header.segment_count {
            let record = SegmentRecord::decode(body)?;
            *body = body.get(SegmentRecord::BYTES..).unwrap_or_default();
            let rises = segments
                .last()
                .is_none_or(|before| before.segment_id < record.segment_id);
            let is_last_of_log = record.segment_id == header.log_segment_id;
            if !rises
                || record.segment_id > header.log_segment_id
                || !is_in_segment(record.used_bytes, segment_bytes)
                || (is_last_of_log && record.used_bytes != header.log_offset_bytes)
            {
                return Err(FormatError::Damaged("a segment is out of range"));
            }
            segments.push(record);
        }
        Ok(Self(segments))
    }

    pub(crate) fn segments(&self) -> &[SegmentRecord] {
        &self.0
    }

    /// Checks that what a record points at can be there.
    pub(crate) fn check(&self, record: &IndexRecord<'_>) -> Result<(), FormatError> {
        let at = self
            .0
            .binary_search_by_key(&record.segment_id, |segment| segment.segment_id);
        let segment = at.ok().and_then(|at| self.0.get(at));
        if segment.is_none_or(|segment| !record.is_within(segment)) {
            return Err(FormatError::Damaged("a value is out of range"));
        }
        Ok(())
    }
}
