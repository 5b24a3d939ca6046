//! Bytes for one structure at a time.
//!
//! The first byte of an input chooses: with its lowest bit the checksum is made right, so that what lies
//! behind it is reached; without, the bytes are taken as they are.

use super::split_first;
use crate::format::{
    BatchHeader, BatchPlace, BlockWriter, CheckpointHeader, Encoding, Entry, EntryKind,
    IndexRecord, PAGE_BYTES, SegmentHeader, SegmentRecord, StoreId, Superblock, crc32c,
};

const SEGMENT_BYTES: u64 = 64 << 10;
pub(super) const STORE_ID: StoreId = StoreId([7; 16]);
const BATCH_CHECKSUM_OFFSET: usize = 76;
pub(super) const RESEAL: u8 = 1;

/// Makes the checksum at the end of a page right.
pub(super) fn seal_page(page: &mut Vec<u8>) {
    page.resize(PAGE_BYTES, 0);
    let (fields, checksum) = page.split_at_mut(PAGE_BYTES - 4);
    checksum.copy_from_slice(&crc32c(fields).to_le_bytes());
}

/// Makes the checksum of a batch's header right, if its pages are all there.
pub(super) fn seal_batch_header(bytes: &mut [u8]) {
    let header_bytes = bytes
        .get(60..64)
        .and_then(|field| field.try_into().ok())
        .map_or(0, u32::from_le_bytes) as usize;
    let Some(header) = bytes.get_mut(..header_bytes) else {
        return;
    };
    if let Some(field) = header.get_mut(BATCH_CHECKSUM_OFFSET..BATCH_CHECKSUM_OFFSET + 4) {
        field.fill(0);
        let checksum = crc32c(header);
        header[BATCH_CHECKSUM_OFFSET..BATCH_CHECKSUM_OFFSET + 4]
            .copy_from_slice(&checksum.to_le_bytes());
    }
}

pub(super) fn page_of(input: &[u8]) -> Vec<u8> {
    let (mode, rest) = split_first(input);
    let mut page = rest.to_vec();
    if mode & RESEAL != 0 {
        seal_page(&mut page);
    }
    page
}

pub(super) fn superblock(input: &[u8]) {
    if let Ok(superblock) = Superblock::decode(&page_of(input)) {
        assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
    }
}

pub(super) fn superblock_seeds() -> Vec<Vec<u8>> {
    sealed(vec![Superblock::new(STORE_ID, SEGMENT_BYTES).encode()])
}

pub(super) fn segment_header(input: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(&page_of(input)) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
}

pub(super) fn segment_header_seeds() -> Vec<Vec<u8>> {
    let header = SegmentHeader {
        store_id: STORE_ID,
        segment_id: 3,
        segment_bytes: SEGMENT_BYTES,
    };
    sealed(vec![header.encode()])
}

/// Each structure as it is, and with the mark that asks for a right checksum; without padding, so that
/// what matters is changed more often.
pub(super) fn sealed(structures: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let marked = |mode: u8, bytes: &[u8]| [&[mode], bytes].concat();
    structures
        .iter()
        .flat_map(|bytes| {
            let used = bytes[..bytes.len() - 4].iter().rposition(|&byte| byte != 0);
            let used = used.map_or(0, |last| last + 1);
            [marked(0, bytes), marked(RESEAL, &bytes[..used])]
        })
        .collect()
}

/// Where a header says that it is.
fn place_of(bytes: &[u8]) -> Option<BatchPlace> {
    let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some(BatchPlace {
        store_id: StoreId(bytes.get(8..24)?.try_into().ok()?),
        segment_id: word(24)?,
        offset_bytes: word(32)?,
    })
}

pub(super) fn batch_header(input: &[u8]) {
    let (mode, rest) = split_first(input);
    let mut bytes = rest.to_vec();
    if mode & RESEAL != 0 {
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        seal_batch_header(&mut bytes);
    }
    let Some(place) = place_of(&bytes) else {
        return;
    };
    if let Ok(header) = BatchHeader::decode(&bytes, &place) {
        let (encoded, _) = header.encode();
        let again = BatchHeader::decode(&encoded, &place).map(|again| BatchHeader {
            checksum: header.checksum,
            ..again
        });
        assert_eq!(again, Ok(header));
    }
}

pub(super) fn batch_header_seeds() -> Vec<Vec<u8>> {
    let entry = |kind, key: &[u8], at, stored_bytes| Entry {
        kind,
        encoding: Encoding::Raw,
        checksum: 5,
        value_offset_bytes: at,
        stored_bytes,
        raw_bytes: stored_bytes,
        key: key.into(),
    };
    let header = BatchHeader {
        place: BatchPlace {
            store_id: STORE_ID,
            segment_id: 1,
            offset_bytes: PAGE_BYTES as u64,
        },
        sequence: 9,
        synced_sequence: 8,
        previous_checksum: 77,
        header_bytes: PAGE_BYTES as u32,
        payload_bytes: 8192,
        checksum: 0,
        life: 0,
        entries: vec![
            entry(EntryKind::Put, b"small", 0, 100),
            entry(EntryKind::Delete, b"gone", 0, 0),
            entry(EntryKind::Put, b"large", 4096, 4096),
        ],
    };
    sealed(vec![header.encode().0])
}

pub(super) fn checkpoint(input: &[u8]) {
    let (mode, rest) = split_first(input);
    let file = if mode & RESEAL != 0 {
        sealed_checkpoint(rest)
    } else {
        rest.to_vec()
    };
    let Ok(header) = CheckpointHeader::decode(&file) else {
        return;
    };
    assert_eq!(
        CheckpointHeader::decode(&header.encode()),
        Ok(header.clone())
    );
    let Ok(body) = header.body(&file) else {
        return;
    };
    assert_eq!(body.len() as u64, header.body_bytes);
    assert!(header.file_bytes() <= Some(file.len().next_multiple_of(PAGE_BYTES) as u64));
    if header.check(&body, SEGMENT_BYTES).is_ok() {
        let mut left = &body[header.segment_count as usize * SegmentRecord::BYTES..];
        for _ in 0..header.entry_count {
            assert!(IndexRecord::decode(&mut left).is_ok(), "checked before");
        }
        assert!(left.is_empty());
    }
}

/// Where the reserved bytes of a checkpoint's first page begin.
const CHECKPOINT_FIELDS_BYTES: usize = 96;

/// A file with right checksums: first the header's fields, then the body.
fn sealed_checkpoint(bytes: &[u8]) -> Vec<u8> {
    let (fields, body) = bytes.split_at(bytes.len().min(CHECKPOINT_FIELDS_BYTES));
    let mut page = fields.to_vec();
    seal_page(&mut page);
    let Ok(header) = CheckpointHeader::decode(&page) else {
        return page;
    };
    let mut writer = BlockWriter::new(header.store_id, header.generation);
    writer.append(|block| block.extend_from_slice(body));
    writer.finish(|body_bytes| CheckpointHeader {
        body_bytes,
        ..header
    })
}

pub(super) fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let mut body = Vec::new();
    for (segment_id, used_bytes) in [(1, 40_960), (4, 12_288)] {
        let record = SegmentRecord {
            segment_id,
            used_bytes,
        };
        record.encode(&mut body);
    }
    for (key, segment_id, offset_bytes) in [(&b"one"[..], 1, 8192), (b"two", 4, 4096)] {
        let record = IndexRecord {
            segment_id,
            offset_bytes,
            stored_bytes: 4000,
            raw_bytes: 4000,
            sequence: 6,
            checksum: 1,
            encoding: Encoding::Raw,
            key,
        };
        record.encode(&mut body);
    }
    let header = CheckpointHeader {
        clean: true,
        store_id: STORE_ID,
        generation: 5,
        sequence: 9,
        checksum: 3,
        segment_count: 2,
        log_segment_id: 4,
        log_offset_bytes: 12_288,
        entry_count: 2,
        body_bytes: body.len() as u64,
        synced_sequence: 9,
    };
    let mut writer = BlockWriter::new(header.store_id, header.generation);
    writer.append(|block| block.extend_from_slice(&body));
    let file = writer.finish(|_| header.clone());
    let fields = &header.encode()[..CHECKPOINT_FIELDS_BYTES];
    vec![
        [&[0][..], &file].concat(),
        [&[RESEAL][..], fields, &body].concat(),
    ]
}
