//! Each structure comes back as it was written, and nothing else is taken for one.

use proptest::prelude::*;

use super::*;

const STORE: StoreId = StoreId([7; 16]);

fn batch() -> BatchHeader {
    let put = |key: &[u8], offset, stored| Entry {
        kind: EntryKind::Put,
        encoding: Encoding::Raw,
        checksum: 99,
        value_offset_bytes: offset,
        stored_bytes: stored,
        raw_bytes: stored,
        key: key.into(),
    };
    let delete = Entry {
        kind: EntryKind::Delete,
        encoding: Encoding::Raw,
        checksum: 0,
        value_offset_bytes: 0,
        stored_bytes: 0,
        raw_bytes: 0,
        key: [9; KEY_BYTES_MAX].into(),
    };
    let from = ValuePlace {
        segment_id: 2,
        offset_bytes: 4104,
    };
    let moved = Entry {
        kind: EntryKind::Move { from },
        ..put(b"moved", 8, 5)
    };
    let entries_bytes = Entry::encoded_bytes(1)
        + Entry::encoded_bytes(10)
        + Entry::encoded_bytes(KEY_BYTES_MAX)
        + Entry::moved_bytes(5);
    let entries = vec![
        put(b"a", 0, 5),
        put(b"longer key", 8192, 4096),
        delete,
        moved,
    ];
    let place = BatchPlace {
        store_id: STORE,
        segment_id: 3,
        offset_bytes: 8192,
    };
    let header_bytes = BatchHeader::header_bytes_for(entries_bytes).unwrap() as u32;
    let mut header = BatchHeader {
        place,
        sequence: 41,
        synced_sequence: 40,
        previous_checksum: 1234,
        header_bytes,
        payload_bytes: 12288,
        checksum: 0,
        life: 77,
        entries,
    };
    header.checksum = header.encode().1;
    header
}

fn checkpoint() -> (CheckpointHeader, Vec<u8>, Vec<u8>) {
    let mut writer = BlockWriter::new(STORE, 5);
    let mut body = Vec::new();
    for i in 0..20_000_u64 {
        let record = IndexRecord {
            segment_id: i,
            offset_bytes: 4096,
            stored_bytes: 10,
            raw_bytes: 10,
            sequence: i,
            checksum: 3,
            encoding: Encoding::Raw,
            key: &i.to_le_bytes(),
        };
        record.encode(&mut body);
        writer.append(|block| record.encode(block));
    }
    let mut header = None;
    let file = writer.finish(|body_bytes| {
        let made = CheckpointHeader {
            clean: true,
            store_id: STORE,
            generation: 5,
            sequence: 41,
            checksum: 77,
            segment_count: 0,
            log_segment_id: 3,
            log_offset_bytes: 8192,
            entry_count: 20_000,
            body_bytes,
            synced_sequence: 43,
        };
        header = Some(made.clone());
        made
    });
    (header.unwrap(), body, file)
}

#[test]
fn structures_come_back_as_they_were() {
    let superblock = Superblock::new(STORE, 1 << 20);
    assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
    let segment = SegmentHeader {
        store_id: STORE,
        segment_id: 9,
        segment_bytes: 1 << 20,
    };
    assert_eq!(SegmentHeader::decode(&segment.encode()), Ok(segment));
    let batch = batch();
    assert_eq!(
        BatchHeader::decode(&batch.encode().0, &batch.place),
        Ok(batch)
    );
    let (header, body, file) = checkpoint();
    assert_eq!(CheckpointHeader::decode(&file), Ok(header.clone()));
    assert!(body.len() > 4 * (256 << 10), "several blocks");
    assert_eq!(header.body(&file), Ok(body.clone()));
    let mut rest = body.as_slice();
    for i in 0..20_000_u64 {
        assert_eq!(IndexRecord::decode(&mut rest).unwrap().key, i.to_le_bytes());
    }
    assert!(rest.is_empty());
}

#[test]
fn names_of_segments_come_back() {
    for id in [0, 1, 0xabc, COUNT_MAX] {
        assert_eq!(segment_id(&segment_name(id).unwrap()), Some(id));
    }
    for name in [
        "SEGMENT-1",
        "SEGMENT-000000000000000G",
        "SEGMENT-000000000000000A",
        "STORE",
    ] {
        assert_eq!(
            segment_id(&crate::FileName::new(name).unwrap()),
            None,
            "{name}"
        );
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    let batch = batch();
    let (bytes, _) = batch.encode();
    let superblock = Superblock::new(STORE, 1 << 20).encode();
    let segment = SegmentHeader {
        store_id: STORE,
        segment_id: 9,
        segment_bytes: 1 << 20,
    }
    .encode();
    let flip = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..PAGE_BYTES * 8 {
        assert!(
            BatchHeader::decode(&flip(&bytes, bit), &batch.place).is_err(),
            "bit {bit}"
        );
        assert!(
            Superblock::decode(&flip(&superblock, bit)).is_err(),
            "bit {bit}"
        );
        assert!(
            SegmentHeader::decode(&flip(&segment, bit)).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn every_flipped_byte_of_a_checkpoint_is_noticed() {
    let (header, body, file) = checkpoint();
    let blocks = body.len().div_ceil(256 << 10);
    let used = PAGE_BYTES + body.len() + 8 * blocks;
    let mut file = file;
    for at in (0..PAGE_BYTES)
        .step_by(41)
        .chain((PAGE_BYTES..used).step_by(9973))
    {
        file[at] ^= 0x10;
        let read = CheckpointHeader::decode(&file).and_then(|header| header.body(&file));
        assert!(read.is_err(), "byte {at}");
        file[at] ^= 0x10;
    }
    assert!(header.body(&file[..used - 1]).is_err(), "truncated");
}

#[test]
fn a_block_of_another_generation_is_refused() {
    let (mut header, _, file) = checkpoint();
    header.generation += 1;
    assert!(header.body(&file).is_err());
}

#[test]
fn a_header_that_belongs_elsewhere_is_refused() {
    let batch = batch();
    let (bytes, _) = batch.encode();
    let elsewhere = [
        BatchPlace {
            store_id: StoreId([8; 16]),
            ..batch.place
        },
        BatchPlace {
            segment_id: 4,
            ..batch.place
        },
        BatchPlace {
            offset_bytes: 4096,
            ..batch.place
        },
    ];
    for place in elsewhere {
        assert!(BatchHeader::decode(&bytes, &place).is_err(), "{place:?}");
    }
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let mut page = Superblock::new(STORE, 1 << 20).encode();
    page.truncate(PAGE_BYTES - 4);
    page[8] = 2;
    let page = super::bytes::seal_page(page);
    assert_eq!(Superblock::decode(&page), Err(FormatError::NewerVersion(2)));
}

/// The bytes of a structure with some of them replaced and the checksum mended, so that what comes
/// after the checksum is tried too.
fn resealed(bytes: &[u8], changes: &[(usize, u8)]) -> Vec<u8> {
    let mut page = bytes[..PAGE_BYTES - 4].to_vec();
    for &(at, byte) in changes {
        page[at % 128] = byte;
    }
    super::bytes::seal_page(page)
}

proptest! {
    #[test]
    fn random_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(Superblock::decode(&bytes).is_err());
        prop_assert!(SegmentHeader::decode(&bytes).is_err());
        prop_assert!(BatchHeader::decode(&bytes, &batch().place).is_err());
        prop_assert!(CheckpointHeader::decode(&bytes).is_err());
        let mut rest = bytes.as_slice();
        while IndexRecord::decode(&mut rest).is_ok() {}
        drop(SegmentRecord::decode(&bytes));
    }

    #[test]
    fn wrong_fields_behind_a_right_checksum_do_no_harm(
        changes in prop::collection::vec((0_usize..128, any::<u8>()), 1..6),
    ) {
        drop(Superblock::decode(&resealed(&Superblock::new(STORE, 1 << 20).encode(), &changes)));
        let (_, _, file) = checkpoint_small();
        let page = resealed(&file, &changes);
        if let Ok(header) = CheckpointHeader::decode(&page) {
            drop(header.body(&file));
            drop(header.body(&page));
        }
        let batch = batch();
        let (mut bytes, _) = batch.encode();
        for (at, byte) in changes {
            bytes[40 + at] = byte;
        }
        let mut zeroed = bytes.clone();
        zeroed[76..80].fill(0);
        let checksum = crc32c(&zeroed);
        bytes[76..80].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(header) = BatchHeader::decode(&bytes, &batch.place) {
            for entry in header.entries {
                prop_assert!(entry.value_offset_bytes + entry.stored_bytes <= header.payload_bytes);
            }
        }
    }
}

fn checkpoint_small() -> (CheckpointHeader, Vec<u8>, Vec<u8>) {
    let header = |body_bytes| CheckpointHeader {
        clean: false,
        store_id: STORE,
        generation: 1,
        sequence: 1,
        checksum: 1,
        segment_count: 0,
        log_segment_id: 1,
        log_offset_bytes: 4096,
        entry_count: 1,
        body_bytes,
        synced_sequence: 1,
    };
    let mut writer = BlockWriter::new(STORE, 1);
    writer.append(|block| block.extend_from_slice(&[1; 100]));
    (header(100), vec![1; 100], writer.finish(header))
}
