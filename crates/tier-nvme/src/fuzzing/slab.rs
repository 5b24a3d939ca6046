//! Bytes for the structures of a slab, and a whole slab with changed bytes.

use std::sync::OnceLock;

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore, ContractError};

use super::image::edit;
use super::split_first;
use super::structures::{RESEAL, STORE_ID, page_of, seal_page, sealed};
use crate::format::slab::{
    BlockEdit, BlockPlace, CHUNK_BYTES, ChunkWriter, LogPlace, Record, SlabSuperblock,
    SlotGeometry, TableHeader, chunk_entries,
};
use crate::format::{PAGE_BYTES, StoreId, crc32c, crc32c_of};
use crate::sim::SimVolume;
use crate::{BlockSlab, SlabConfig};

const BLOCK_BYTES: usize = 8 << 10;
const GEOMETRY: SlotGeometry = SlotGeometry {
    block_bytes: BLOCK_BYTES as u64,
    // Header, log, eight slots.
    segment_bytes: (4 << 10) + (32 << 10) + 8 * BLOCK_BYTES as u64,
    log_bytes: 32 << 10,
};
const SEGMENT_ID: u32 = 3;
/// Size of the disk under a whole slab in bytes.
const DISK_BYTES: u64 = 16 << 20;

const RECORD_CHECKSUM_AT: usize = 68;
/// Where the reserved bytes of a table's first page begin.
const TABLE_FIELDS_BYTES: usize = 80;

/// Bits of an input's first byte for a whole slab.
const KILLED: u8 = 1;
const READ_ONLY: u8 = 2;

pub(super) fn superblock(input: &[u8]) {
    if let Ok(superblock) = SlabSuperblock::decode(&page_of(input)) {
        assert!(superblock.geometry.check().is_ok());
        assert_eq!(SlabSuperblock::decode(&superblock.encode()), Ok(superblock));
    }
}

pub(super) fn superblock_seeds() -> Vec<Vec<u8>> {
    let superblock = SlabSuperblock {
        store_id: STORE_ID,
        geometry: GEOMETRY,
        incompatible: 0,
        compatible: 0,
    };
    sealed(vec![superblock.encode()])
}

pub(super) fn segment_header(input: &[u8]) {
    let page = page_of(input);
    let is_right = |page: &[u8]| {
        GEOMETRY
            .check_segment_header(STORE_ID, SEGMENT_ID, page)
            .is_ok()
    };
    if is_right(&page) {
        // What counts is what is written, reserved bytes aside.
        let fields = &GEOMETRY.segment_header(STORE_ID, SEGMENT_ID)[..56];
        assert_eq!(page.get(..56), Some(fields));
    }
}

pub(super) fn segment_header_seeds() -> Vec<Vec<u8>> {
    sealed(vec![GEOMETRY.segment_header(STORE_ID, SEGMENT_ID)])
}

/// Makes the checksum of a record right, if its pages are all there.
pub(super) fn seal_record(bytes: &mut [u8]) {
    let record_bytes = bytes
        .get(60..64)
        .and_then(|field| field.try_into().ok())
        .map_or(0, u32::from_le_bytes) as usize;
    let Some(record) = bytes.get_mut(..record_bytes) else {
        return;
    };
    let field = RECORD_CHECKSUM_AT..RECORD_CHECKSUM_AT + 4;
    if let Some(checksum) = record.get_mut(field.clone()) {
        checksum.fill(0);
        let checksum = crc32c(record);
        record[field].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Where a record says that it is.
fn place_of(bytes: &[u8]) -> Option<LogPlace> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(LogPlace {
        store_id: StoreId(bytes.get(8..24)?.try_into().ok()?),
        segment_id: word(48)?,
        offset_bytes: word(52)?,
    })
}

pub(super) fn record(input: &[u8]) {
    let (mode, rest) = split_first(input);
    let mut bytes = rest.to_vec();
    if mode & RESEAL != 0 {
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        seal_record(&mut bytes);
    }
    let Some(place) = place_of(&bytes) else {
        return;
    };
    if let Ok(record) = Record::decode(&bytes, &place) {
        let (encoded, _) = record.encode();
        // It may have been longer than it had to be, and have reserved bytes.
        let again = Record::decode(&encoded, &place).map(|again| Record {
            checksum: record.checksum,
            record_bytes: record.record_bytes,
            ..again
        });
        assert_eq!(again, Ok(record));
    }
}

fn places() -> Vec<(BlockKey, BlockPlace)> {
    let place = |slot, payload_bytes, meta: &[u8]| BlockPlace {
        segment_id: SEGMENT_ID,
        slot,
        payload_bytes,
        checksum: 5,
        meta: meta.into(),
    };
    vec![
        (BlockKey(1), place(0, 8192, b"")),
        (BlockKey(u128::MAX), place(1, 1, b"layer 7")),
    ]
}

pub(super) fn record_seeds() -> Vec<Vec<u8>> {
    let puts = places().into_iter();
    let edits = puts.map(|(key, place)| BlockEdit::Put(key, place));
    let record = Record {
        place: LogPlace {
            store_id: STORE_ID,
            segment_id: SEGMENT_ID,
            offset_bytes: 4096,
        },
        epoch: 4,
        sequence: 9,
        synced_sequence: 8,
        previous_checksum: 77,
        checksum: 0,
        record_bytes: 0,
        edits: edits.chain([BlockEdit::Remove(BlockKey(6))]).collect(),
    };
    sealed(vec![record.encode().0])
}

/// The checksum of a chunk with these used bytes.
fn chunk_checksum(header: &TableHeader, index: u64, used: &[u8]) -> u32 {
    crc32c_of([
        &header.store_id.0[..],
        &header.generation.to_le_bytes(),
        &index.to_le_bytes(),
        used,
    ])
}

/// A header page and one chunk, with right checksums.
fn sealed_table(bytes: &[u8]) -> Vec<u8> {
    let (fields, used) = bytes.split_at(bytes.len().min(TABLE_FIELDS_BYTES));
    let mut page = fields.to_vec();
    seal_page(&mut page);
    let Ok(header) = TableHeader::decode(&page) else {
        return page;
    };
    let used = &used[..used.len().min(CHUNK_BYTES - 8)];
    let checksum = chunk_checksum(&header, 0, used).to_le_bytes();
    let mut file = [
        &page,
        &(used.len() as u32).to_le_bytes()[..],
        &checksum,
        used,
    ]
    .concat();
    file.resize(PAGE_BYTES + CHUNK_BYTES, 0);
    file
}

pub(super) fn table(input: &[u8]) {
    let (mode, rest) = split_first(input);
    let file = if mode & RESEAL != 0 {
        sealed_table(rest)
    } else {
        rest.to_vec()
    };
    let (page, chunks) = file.split_at(file.len().min(PAGE_BYTES));
    let Ok(header) = TableHeader::decode(page) else {
        return;
    };
    assert_eq!(TableHeader::decode(&header.encode()), Ok(header.clone()));
    for (index, chunk) in (0..).zip(chunks.chunks(CHUNK_BYTES)) {
        let Ok((mut used, checksum)) = chunk_entries(&header, index, chunk) else {
            continue;
        };
        assert_eq!(checksum, chunk_checksum(&header, index, used));
        // Segments come first; what they are is for the whole table to say.
        if index == 0 {
            let segments_bytes = (header.segment_count as usize).saturating_mul(8);
            used = used.get(segments_bytes..).unwrap_or_default();
        }
        while !used.is_empty() {
            let Ok(edit) = BlockEdit::decode(&mut used) else {
                break;
            };
            let mut encoded = Vec::new();
            edit.encode(&mut encoded);
            assert_eq!(encoded.len(), edit.encoded_bytes());
            assert_eq!(BlockEdit::decode(&mut encoded.as_slice()), Ok(edit));
        }
    }
}

pub(super) fn table_seeds() -> Vec<Vec<u8>> {
    let mut writer = ChunkWriter::new(STORE_ID, 5);
    // One chunk has room for all of it.
    drop(writer.segment(SEGMENT_ID));
    for (key, place) in places() {
        drop(writer.block(key, &place));
    }
    let (chunk, chunk_count, body_checksum) = writer.finish();
    let header = TableHeader {
        store_id: STORE_ID,
        clean: true,
        second: false,
        generation: 5,
        sequence: 9,
        record_checksum: 3,
        segment_id_next: SEGMENT_ID + 1,
        segment_count: 1,
        entry_count: 2,
        chunk_count,
        body_checksum,
    };
    let chunk = chunk.unwrap_or_default();
    let used = chunk_entries(&header, 0, &chunk).map_or(&[][..], |(used, _)| used);
    let page = header.encode();
    vec![
        [&[0][..], &page, &chunk].concat(),
        [&[RESEAL][..], &page[..TABLE_FIELDS_BYTES], used].concat(),
    ]
}

/// Makes all checksums of a table's file right, as far as its header says that there are chunks.
pub(super) fn reseal_table(volume: &SimVolume, name: &str) {
    let bytes = volume.bytes_of(name).unwrap_or_default();
    let mut page = bytes[..PAGE_BYTES.min(bytes.len())].to_vec();
    seal_page(&mut page);
    let Ok(mut header) = TableHeader::decode(&page) else {
        volume.overwrite(name, 0, &page);
        return;
    };
    let mut checksums = Vec::new();
    let chunks = bytes.get(PAGE_BYTES..).unwrap_or_default();
    let count = usize::try_from(header.chunk_count).unwrap_or(usize::MAX);
    for (index, chunk) in (0..).zip(chunks.chunks(CHUNK_BYTES).take(count)) {
        let used_bytes = chunk
            .first_chunk::<4>()
            .map_or(0, |it| u32::from_le_bytes(*it));
        let used = chunk
            .get(8..)
            .and_then(|used| used.get(..used_bytes as usize));
        let Some(used) = used else { continue };
        let checksum = chunk_checksum(&header, index, used).to_le_bytes();
        checksums.extend_from_slice(&checksum);
        let at = PAGE_BYTES as u64 + index * CHUNK_BYTES as u64;
        volume.overwrite(name, at + 4, &checksum);
    }
    header.body_checksum = crc32c(&checksums);
    volume.overwrite(name, 0, &header.encode());
}

fn config() -> SlabConfig {
    SlabConfig::default()
        .with_block_bytes(GEOMETRY.block_bytes)
        .with_segment_bytes(GEOMETRY.segment_bytes)
        .with_log_bytes(GEOMETRY.log_bytes)
        .with_capacity_bytes(3 * GEOMETRY.segment_bytes)
        .with_own_thread(false)
}

fn put(slab: &BlockSlab, key: u128, len_bytes: usize) -> Result<(), ContractError> {
    let mut payload = BufferMut::zeroed(len_bytes, PAGE_BYTES)?;
    payload.fill(key as u8);
    let meta = BlockMeta::new(&vec![key as u8; len_bytes % 129])?;
    let key = BlockKey(key);
    let stored = slab.put(vec![BlockPut { key, meta, payload }]).wait();
    let stored = stored.map_err(|failure| failure.into_parts().0)?;
    stored.into_iter().try_for_each(|item| match item {
        Ok(_) => Ok(()),
        Err(failure) => Err(failure.into_parts().0),
    })
}

/// A slab of two segments with replaced and removed blocks: closed, and killed with records behind its tables.
fn images() -> &'static [SimVolume; 2] {
    static IMAGES: OnceLock<[SimVolume; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let volume = SimVolume::new(1);
        // Nothing fails on a volume that nobody has told to.
        let closed = build(&volume, true).map(|()| volume.fork(2));
        let killed = closed.as_ref().ok().map(|closed| closed.fork(3));
        if let Some(killed) = &killed {
            drop(build(killed, false));
        }
        let killed = killed.unwrap_or(volume.clone());
        [closed.unwrap_or(volume), killed.fork(4)]
    })
}

fn build(volume: &SimVolume, close: bool) -> Result<(), ContractError> {
    let slab = BlockSlab::on_volume(volume.handle(), config())?;
    for (key, len_bytes) in [1, 4096, 8192, 300, 5000, 8192, 8191, 77, 8192, 4097, 12]
        .into_iter()
        .enumerate()
    {
        put(&slab, key as u128, len_bytes)?;
    }
    put(&slab, 3, 6000)?;
    let removed = slab.remove(&[BlockKey(4), BlockKey(9)]).wait();
    removed.map_err(|failure| failure.into_parts().0)?;
    if close {
        return Ok(slab.close()?);
    }
    volume.kill();
    Ok(())
}

pub(super) fn slab(input: &[u8]) {
    let (mode, mut edits) = split_first(input);
    let [closed, killed] = images();
    let base = if mode & KILLED == 0 { closed } else { killed };
    let volume = base.fork(5);
    // What a superblock claims must not make the simulation use more memory than that.
    volume.set_capacity(DISK_BYTES);
    let files = volume.files();
    while let Some(rest) = edit(&volume, &files, edits) {
        edits = rest;
    }
    exercise(&volume, mode & READ_ONLY != 0);
}

/// Does everything that a user does; whatever is wrong is an error, and what is put now is got.
fn exercise(volume: &SimVolume, read_only: bool) {
    let config = config().with_read_only(read_only);
    let Ok(slab) = BlockSlab::on_volume(volume.handle(), config.clone()) else {
        return;
    };
    drop(slab.verify());
    for entry in slab.list(None, usize::MAX).unwrap_or_default() {
        if let Some(payload_bytes) = got(&slab, entry.key).map(|payload| payload.len()) {
            assert_eq!(payload_bytes as u64, entry.payload_bytes);
        }
    }
    if !read_only && put(&slab, 200, 5000).is_ok() {
        assert_eq!(got(&slab, BlockKey(200)), Some(vec![200; 5000]));
        assert!(
            slab.remove(&[BlockKey(200)])
                .wait()
                .is_ok_and(|it| it == [true])
        );
    }
    drop(slab.close());
    drop(slab);
    drop(BlockSlab::on_volume(volume.handle(), config));
}

fn got(slab: &BlockSlab, key: BlockKey) -> Option<Vec<u8>> {
    let target = BufferMut::zeroed(BLOCK_BYTES, PAGE_BYTES).ok()?;
    let blocks = slab.get(vec![BlockGet { key, target }]).wait().ok()?;
    let block = blocks.into_iter().next()?.ok()?;
    Some(block.payload().to_vec())
}

pub(super) fn slab_seeds() -> Vec<Vec<u8>> {
    const EDIT_RESEAL: u8 = 1;
    const EDIT_REMOVE: u8 = 2;
    // File, page, offset in it (2 bytes), length, flags, bytes; the files are in order of their names.
    let edits: [&[u8]; 7] = [
        &[],
        // A segment's header, a record, a payload.
        &[0, 0, 12, 0, 1, EDIT_RESEAL, 5],
        &[0, 1, 84, 0, 4, EDIT_RESEAL, 255, 255, 0, 0],
        &[0, 10, 7, 0, 1, 0, 77],
        // The superblock, a table, and one without its twin.
        &[
            2,
            0,
            58,
            0,
            2,
            EDIT_RESEAL,
            255,
            255,
            2,
            1,
            58,
            0,
            2,
            EDIT_RESEAL,
            255,
            255,
        ],
        &[3, 1, 16, 0, 2, EDIT_RESEAL, 9, 0],
        &[4, 0, 0, 0, 0, EDIT_REMOVE, 3, 0, 72, 0, 1, EDIT_RESEAL, 7],
    ];
    (0..4)
        .flat_map(|mode| edits.map(|edits| [&[mode][..], edits].concat()))
        .collect()
}
