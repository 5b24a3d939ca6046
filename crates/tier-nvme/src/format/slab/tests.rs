//! Each structure of a slab comes back as it was written, and nothing else is taken for one.

use core_view::contract::BlockKey;
use proptest::prelude::*;

use super::super::{PAGE_BYTES, StoreId};
use super::*;

const STORE: StoreId = StoreId([7; 16]);
const GEOMETRY: SlotGeometry = SlotGeometry {
    block_bytes: 5000,
    segment_bytes: 1 << 20,
    log_bytes: 32 << 10,
};
const PLACE: LogPlace = LogPlace {
    store_id: STORE,
    segment_id: 3,
    offset_bytes: 8192,
};

fn place(slot: u32, meta_bytes: usize) -> BlockPlace {
    BlockPlace {
        segment_id: 3,
        slot,
        payload_bytes: 77,
        checksum: 99,
        meta: vec![5; meta_bytes].into(),
    }
}

fn superblock() -> SlabSuperblock {
    SlabSuperblock {
        store_id: STORE,
        geometry: GEOMETRY,
        incompatible: 0,
        compatible: 0,
    }
}

fn record() -> Record {
    let mut edits = vec![BlockEdit::Remove(BlockKey(u128::MAX))];
    edits
        .extend((0..40).map(|i| BlockEdit::Put(BlockKey(u128::from(i)), place(i, i as usize * 3))));
    let mut record = Record {
        place: PLACE,
        epoch: 5,
        sequence: 41,
        synced_sequence: 40,
        previous_checksum: 1234,
        checksum: 0,
        record_bytes: 0,
        edits,
    };
    let (bytes, checksum) = record.encode();
    record.record_bytes = bytes.len() as u32;
    record.checksum = checksum;
    record
}

fn header() -> TableHeader {
    TableHeader {
        store_id: STORE,
        clean: true,
        second: false,
        generation: 5,
        sequence: 41,
        record_checksum: 8,
        segment_id_next: 4,
        segment_count: 1,
        entry_count: 2,
        chunk_count: 1,
        body_checksum: 9,
    }
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[test]
fn structures_come_back_as_they_were() {
    assert_eq!(
        SlabSuperblock::decode(&superblock().encode()),
        Ok(superblock())
    );
    let record = record();
    assert!(
        record.record_bytes as usize > PAGE_BYTES,
        "more than a page"
    );
    assert_eq!(Record::decode(&record.encode().0, &PLACE), Ok(record));
    assert_eq!(TableHeader::decode(&header().encode()), Ok(header()));
    let page = GEOMETRY.segment_header(STORE, 3);
    assert_eq!(GEOMETRY.check_segment_header(STORE, 3, &page), Ok(()));
    assert!(GEOMETRY.check_segment_header(STORE, 4, &page).is_err());
    assert!(
        GEOMETRY
            .check_segment_header(StoreId([8; 16]), 3, &page)
            .is_err()
    );
    for id in [0, 7, u32::MAX] {
        assert_eq!(blocks_segment_id(&blocks_name(id).unwrap()), Some(id));
    }
}

#[test]
fn slots_lie_behind_the_log_within_the_segment() {
    let slots = GEOMETRY.slots() as u32;
    assert_eq!(GEOMETRY.slot_bytes(), 8192);
    assert_eq!(GEOMETRY.slot_offset_bytes(0), 4096 + (32 << 10));
    assert!(GEOMETRY.slot_offset_bytes(slots - 1) + 8192 <= GEOMETRY.segment_bytes);
    assert!(GEOMETRY.slot_offset_bytes(slots) + 8192 > GEOMETRY.segment_bytes);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (bytes, _) = record().encode();
    for bit in 0..bytes.len() * 8 {
        assert!(
            Record::decode(&flipped(&bytes, bit), &PLACE).is_err(),
            "{bit}"
        );
    }
    let pages = [
        superblock().encode(),
        header().encode(),
        GEOMETRY.segment_header(STORE, 3),
    ];
    for bit in 0..PAGE_BYTES * 8 {
        assert!(SlabSuperblock::decode(&flipped(&pages[0], bit)).is_err());
        assert!(TableHeader::decode(&flipped(&pages[1], bit)).is_err());
        let page = flipped(&pages[2], bit);
        assert!(GEOMETRY.check_segment_header(STORE, 3, &page).is_err());
    }
}

#[test]
fn a_table_comes_back_chunk_by_chunk() {
    let mut writer = ChunkWriter::new(STORE, 5);
    let mut chunks: Vec<_> = writer.segment(3).into_iter().collect();
    for i in 0..3000 {
        chunks.extend(writer.block(BlockKey(u128::from(i)), &place(i, i as usize % 129)));
    }
    let (last, count, _) = writer.finish();
    chunks.extend(last);
    assert_eq!(chunks.len() as u64, count);
    assert!(count > 3);
    assert!(PAGE_BYTES as u64 + count * CHUNK_BYTES as u64 <= table_file_bytes(1, 3000));
    let mut found = Vec::new();
    for (index, chunk) in chunks.iter().enumerate() {
        let (mut used, _) = chunk_entries(&header(), index as u64, chunk).unwrap();
        if index == 0 {
            used = &used[8..];
        }
        while !used.is_empty() {
            found.push(BlockEdit::decode(&mut used).unwrap());
        }
        assert!(chunk_entries(&header(), index as u64 + 1, chunk).is_err());
        let other = TableHeader {
            generation: 6,
            ..header()
        };
        assert!(chunk_entries(&other, index as u64, chunk).is_err());
        for bit in (0..chunk.len() * 4).step_by(997) {
            assert!(chunk_entries(&header(), index as u64, &flipped(chunk, bit)).is_err());
        }
    }
    assert_eq!(found.len(), 3000);
}

#[test]
fn a_record_is_known_as_begun_by_its_first_sector() {
    let (bytes, _) = record().encode();
    assert!(is_begun(&bytes[..512], STORE, 5));
    assert!(is_begun(&bytes[..512], STORE, 4), "of a later epoch");
    assert!(!is_begun(&bytes[..512], STORE, 6), "of an earlier epoch");
    assert!(!is_begun(&[0; 512], STORE, 0));
    assert!(!is_begun(&[], STORE, 0));
}

proptest! {
    #[test]
    fn random_bytes_are_an_error_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(SlabSuperblock::decode(&bytes).is_err());
        prop_assert!(Record::decode(&bytes, &PLACE).is_err());
        prop_assert!(TableHeader::decode(&bytes).is_err());
        prop_assert!(GEOMETRY.check_segment_header(STORE, 3, &bytes).is_err());
        drop(chunk_entries(&header(), 0, &bytes));
        let mut rest = bytes.as_slice();
        while BlockEdit::decode(&mut rest).is_ok() {}
    }
}
