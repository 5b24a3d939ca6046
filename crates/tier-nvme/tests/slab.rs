//! The slab at its bounds, and before bytes, files and disks that are not what they should be.
#![expect(clippy::unwrap_used, reason = "tests")]

use core_view::BufferMut;
use core_view::contract::{
    BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore, ErrorKind, Failure,
};
use tier_nvme::sim::SimVolume;
use tier_nvme::{BlockSlab, FileName, NvmeError, SlabConfig};

const PAGE: usize = 4096;
const BLOCK: usize = 8 << 10;
const SEGMENT: u64 = (4 << 10) + (32 << 10) + 10 * BLOCK as u64;
const TABLES: [&str; 2] = ["TABLE-A", "TABLE-B"];

fn config() -> SlabConfig {
    SlabConfig::default()
        .with_block_bytes(BLOCK as u64)
        .with_segment_bytes(SEGMENT)
        .with_capacity_bytes(2 * SEGMENT)
        .with_log_bytes(32 << 10)
}

fn open(volume: &SimVolume) -> Result<BlockSlab, NvmeError> {
    BlockSlab::on_volume(volume.handle(), config())
}

fn block(key: u128) -> BlockPut {
    let mut payload = BufferMut::zeroed(BLOCK, PAGE).unwrap();
    payload.fill(key as u8 + 1);
    BlockPut {
        key: BlockKey(key),
        meta: BlockMeta::new(&[key as u8]).unwrap(),
        payload,
    }
}

fn put(slab: &BlockSlab, keys: std::ops::Range<u128>) -> Vec<Result<BufferMut, Failure>> {
    slab.put(keys.map(block).collect()).wait().unwrap()
}

fn put_all(slab: &BlockSlab, keys: std::ops::Range<u128>) {
    for item in put(slab, keys) {
        item.unwrap();
    }
}

/// The error of a fetch; `None` if the block is there and right.
fn fetch(slab: &BlockSlab, key: u128) -> Option<ErrorKind> {
    let target = BufferMut::zeroed(BLOCK, PAGE).unwrap();
    let get = BlockGet {
        key: BlockKey(key),
        target,
    };
    match slab.get(vec![get]).wait().unwrap().remove(0) {
        Ok(block) => {
            assert_eq!(block.meta.as_slice(), [key as u8]);
            assert!(block.payload().iter().all(|&byte| byte == key as u8 + 1));
            None
        }
        Err(failure) => Some(failure.kind()),
    }
}

/// Blocks 0 to 14, ten in one segment and five in another, closed.
fn closed() -> SimVolume {
    let volume = SimVolume::new(1);
    let slab = open(&volume).unwrap();
    put_all(&slab, 0..15);
    slab.close().unwrap();
    volume
}

/// Changes a field of a page that ends with its checksum.
fn change_field(volume: &SimVolume, name: &str, offset: usize, at: usize, field: &[u8]) {
    let bytes = volume.bytes_of(name).unwrap();
    let mut page = bytes[offset..offset + PAGE].to_vec();
    page[at..at + field.len()].copy_from_slice(field);
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &page[..PAGE - 4]) as u32;
    page[PAGE - 4..].copy_from_slice(&checksum.to_le_bytes());
    assert!(volume.overwrite(name, offset as u64, &page));
}

#[test]
fn a_newer_version_or_an_unknown_feature_is_told() {
    for (name, copies) in [("SLAB", [0, PAGE].as_slice()), ("TABLE-A", &[0])] {
        let volume = closed();
        for copy in copies {
            change_field(&volume, name, *copy, 8, &2_u32.to_le_bytes());
        }
        let error = open(&volume).unwrap_err();
        assert!(
            matches!(error, NvmeError::NewerVersion { found: 2, .. }),
            "{error:?}"
        );
    }
    let volume = closed();
    for copy in [0, PAGE] {
        change_field(&volume, "SLAB", copy, 16, &4_u64.to_le_bytes());
    }
    let error = open(&volume).unwrap_err();
    assert!(matches!(error, NvmeError::UnknownFeatures { bits: 4, .. }));

    let volume = closed();
    for copy in [0, PAGE] {
        change_field(&volume, "SLAB", copy, 24, &4_u64.to_le_bytes());
    }
    let slab = open(&volume).unwrap();
    assert!(slab.read_only_reason().unwrap().contains("newer"));
    assert_eq!(fetch(&slab, 3), None);
    let failure = slab.put(vec![block(1)]).wait().unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Unsupported);
    assert_eq!(failure.into_parts().1.len(), 1, "the payload comes back");
}

#[test]
fn numbers_that_can_not_be_are_no_superblock_and_no_table() {
    for (at, value) in [
        (48, 0),
        (48, u64::MAX),
        (56, 0),
        (56, 4097),
        (56, u64::MAX),
        (64, 0),
        (64, 1 << 40),
    ] {
        let volume = closed();
        for copy in [0, PAGE] {
            change_field(&volume, "SLAB", copy, at, &u64::to_le_bytes(value));
        }
        let error = open(&volume).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at} {value}: {error:?}");
    }
    for (at, value) in [
        (32, u64::MAX),
        (40, u64::MAX),
        (56, u64::MAX),
        (56, 0),
        (64, u64::MAX),
        (64, 0),
        (72, u64::MAX),
    ] {
        let volume = closed();
        change_field(&volume, TABLES[0], 0, at, &u64::to_le_bytes(value));
        let slab = open(&volume).unwrap();
        // Named at once, and replaced; or by verify, if it is the one that was not needed.
        let named = slab.recovery_report().damage.len() + slab.verify().unwrap().damage.len();
        assert_eq!(named, 1, "{at} {value}");
        assert_eq!(slab.usage().blocks, 15, "the other table is whole");
        drop(slab);
        change_field(&volume, TABLES[0], 0, at, &u64::to_le_bytes(value));
        change_field(&volume, TABLES[1], 0, at, &u64::to_le_bytes(value));
        let error = open(&volume).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{at} {value}: {error:?}");
    }
}

#[test]
fn one_damaged_table_is_replaced_and_costs_nothing() {
    for table in TABLES {
        let volume = closed();
        assert!(volume.flip_bit(table, (PAGE as u64 + 20) * 8));
        let slab = open(&volume).unwrap();
        let report = slab.verify().unwrap();
        assert_eq!(report.damage.len(), 1, "{table}: {report:?}");
        assert_eq!(report.damage[0].location, table);
        assert!((0..15).all(|key| fetch(&slab, key).is_none()), "{table}");
        slab.close().unwrap();
        let slab = open(&volume).unwrap();
        assert!(slab.verify().unwrap().is_whole(), "closing wrote both");
    }
}

#[test]
fn a_directory_of_others_is_left_alone() {
    let volume = SimVolume::new(1);
    let notes = FileName::new("notes").unwrap();
    volume.handle().create(&notes, 4096).unwrap();
    let error = open(&volume).unwrap_err();
    assert!(matches!(error, NvmeError::NotAStore { .. }), "{error:?}");
    assert_eq!(volume.files().len(), 1);

    let volume = closed();
    let name = FileName::new("SLAB").unwrap();
    volume.handle().remove(&name).unwrap();
    let error = open(&volume).unwrap_err();
    assert!(error.to_string().contains("restore"), "{error}");

    let error = BlockSlab::on_volume(SimVolume::new(2).handle(), config().with_create(false));
    assert!(matches!(error.unwrap_err(), NvmeError::NotAStore { .. }));
}

#[test]
fn a_segment_that_is_missing_takes_its_blocks_and_no_other() {
    let volume = closed();
    let name = FileName::new("BLOCKS-00000000").unwrap();
    volume.handle().remove(&name).unwrap();
    let slab = open(&volume).unwrap();
    assert_eq!(slab.recovery_report().damage.len(), 1);
    let lost: Vec<_> = (0..15).filter(|&key| fetch(&slab, key).is_some()).collect();
    assert_eq!(lost.len(), 10);
    assert!(
        lost.iter()
            .all(|&key| fetch(&slab, key) == Some(ErrorKind::Corrupt))
    );
    assert_eq!(
        slab.verify().unwrap().damage.len(),
        11,
        "the segment and ten blocks"
    );
    for &key in &lost {
        assert_eq!(slab.remove(&[BlockKey(key)]).wait().unwrap(), [true]);
    }
    put_all(&slab, 20..25);
    slab.close().unwrap();

    // With records that are missed, nobody can tell what changed.
    let volume = closed();
    let slab = open(&volume).unwrap();
    put_all(&slab, 15..16);
    volume.kill();
    drop(slab);
    volume.handle().remove(&name).unwrap();
    let error = open(&volume).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}

#[test]
fn another_segment_takes_the_place_of_one_that_is_missing() {
    let volume = closed();
    let name = FileName::new("BLOCKS-00000000").unwrap();
    volume.handle().remove(&name).unwrap();
    let slab = open(&volume).unwrap();
    put_all(&slab, 20..35);
    let full = put(&slab, 35..36).remove(0).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace, "the bound holds");
    slab.close().unwrap();

    let slab = open(&volume).unwrap();
    assert_eq!(
        slab.recovery_report().damage.len(),
        1,
        "it is missing still"
    );
    let lost = (0..15).filter(|&key| fetch(&slab, key).is_some());
    let lost: Vec<_> = lost.map(BlockKey).collect();
    assert_eq!(lost.len(), 10);
    assert!((20..35).all(|key| fetch(&slab, key).is_none()));
    assert_eq!(slab.remove(&lost).wait().unwrap(), [true; 10]);
    slab.close().unwrap();

    // Nothing is left that anybody could miss.
    let slab = open(&volume).unwrap();
    assert_eq!(slab.recovery_report().damage, []);
    assert!(slab.verify().unwrap().is_whole());
    assert!((20..35).all(|key| fetch(&slab, key).is_none()));
}

#[test]
fn the_blocks_of_missing_segments_can_be_removed_though_there_is_no_other() {
    let volume = closed();
    for name in ["BLOCKS-00000000", "BLOCKS-00000001"] {
        let name = FileName::new(name).unwrap();
        volume.handle().remove(&name).unwrap();
    }
    let slab = open(&volume).unwrap();
    let keys: Vec<_> = (0..15).map(BlockKey).collect();
    assert_eq!(slab.remove(&keys).wait().unwrap(), [true; 15]);
    put_all(&slab, 0..15);
    slab.close().unwrap();
    let slab = open(&volume).unwrap();
    assert_eq!(slab.recovery_report().damage, []);
    assert!((0..15).all(|key| fetch(&slab, key).is_none()));
}

#[test]
fn a_damaged_record_is_missed_only_if_a_later_one_says_so() {
    for (flipped, refused) in [(0, true), (1, true), (2, false)] {
        let volume = SimVolume::new(1);
        let slab = open(&volume).unwrap();
        for key in 0..3 {
            put_all(&slab, key..key + 1);
        }
        volume.kill();
        drop(slab);
        let record = PAGE as u64 * (1 + flipped);
        assert!(volume.flip_bit("BLOCKS-00000000", (record + 50) * 8));
        match open(&volume) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
                assert!(refused, "{flipped}");
            }
            Ok(slab) => {
                assert!(!refused, "{flipped}");
                assert_eq!(slab.usage().blocks, 2);
            }
        }
    }
}

#[test]
fn a_slab_is_open_once() {
    let volume = closed();
    let slab = open(&volume).unwrap();
    assert_eq!(open(&volume).unwrap_err().kind(), ErrorKind::Busy);
    slab.close().unwrap();
    let other = open(&volume).unwrap();
    assert_eq!(slab.contains(&[]).unwrap_err().kind(), ErrorKind::Abandoned);
    let failure = slab.put(vec![block(1)]).wait().unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Abandoned);
    assert_eq!(failure.into_parts().1.len(), 1);
    slab.close().unwrap();
    drop(slab);
    assert_eq!(fetch(&other, 1), None);
}

#[test]
fn other_sizes_are_refused_or_taken_over() {
    let volume = closed();
    let other = config().with_block_bytes(4096);
    let error = BlockSlab::on_volume(volume.handle(), other).unwrap_err();
    assert!(matches!(
        error,
        NvmeError::Invalid {
            field: "block_bytes",
            ..
        }
    ));
    for (field, wrong) in [
        ("block_bytes", config().with_block_bytes(0)),
        ("io_depth", config().with_io_depth(0)),
        ("segment_bytes", config().with_segment_bytes(8192)),
        ("segment_bytes", config().with_capacity_bytes(0)),
        ("segment_bytes", config().with_log_bytes(5000)),
    ] {
        let error = BlockSlab::on_volume(volume.handle(), wrong).unwrap_err();
        assert!(
            matches!(error, NvmeError::Invalid { field: found, .. } if found == field),
            "{field}: {error:?}"
        );
    }
    let larger = config().with_capacity_bytes(4 * SEGMENT);
    let slab = BlockSlab::on_volume(volume.handle(), larger).unwrap();
    put_all(&slab, 15..40);
    slab.close().unwrap();
    let smaller = config().with_capacity_bytes(SEGMENT);
    let slab = BlockSlab::on_volume(volume.handle(), smaller).unwrap();
    assert!((0..40).all(|key| fetch(&slab, key).is_none()));
    let item = put(&slab, 41..42).remove(0);
    assert_eq!(item.unwrap_err().kind(), ErrorKind::NoSpace);
}

#[test]
fn the_bound_is_hard_and_full_is_an_error_of_each_block() {
    let volume = SimVolume::new(1);
    let slab = open(&volume).unwrap();
    let items = put(&slab, 0..25);
    let stored = items.iter().filter(|item| item.is_ok()).count();
    assert_eq!(stored, 20, "what fits is stored");
    for failure in items.into_iter().filter_map(Result::err) {
        assert_eq!(failure.kind(), ErrorKind::NoSpace);
        let reason = failure.error().to_string();
        assert!(reason.contains("a larger capacity"), "{reason}");
        assert_eq!(failure.into_parts().1.len(), 1);
    }
    let files = volume.files();
    let bytes = files.iter().filter(|(name, _)| name.starts_with("BLOCKS"));
    assert_eq!(bytes.map(|(_, len)| len).sum::<u64>(), 2 * SEGMENT);
    // A removal that is under way makes room for a put that came after it.
    let removal = slab.remove(&[BlockKey(3), BlockKey(4)]);
    put_all(&slab, 30..32);
    assert_eq!(removal.wait().unwrap(), [true, true]);
    let stats = slab.stats();
    assert_eq!((stats.blocks, stats.slots_free, stats.no_space), (20, 0, 5));
}

#[test]
fn a_full_disk_is_an_error_when_the_slab_grows() {
    let volume = SimVolume::new(1);
    volume.set_capacity(4096);
    assert_eq!(open(&volume).unwrap_err().kind(), ErrorKind::NoSpace);
    volume.set_capacity(u64::MAX);
    let slab = open(&volume).unwrap();
    put_all(&slab, 0..10);
    volume.set_capacity(0);
    let full = put(&slab, 10..11).remove(0).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    let reason = full.error().to_string();
    assert!(reason.contains("the disk has no room"), "{reason}");
    // Everything else needs no space: changes, tables, closing.
    for round in 0..40 {
        let key = round % 10;
        assert_eq!(slab.remove(&[BlockKey(key)]).wait().unwrap(), [true]);
        put_all(&slab, key..key + 1);
    }
    assert!(slab.stats().tables_written > 0);
    slab.close().unwrap();
    let slab = open(&volume).unwrap();
    assert!(slab.recovery_report().clean && slab.verify().unwrap().is_whole());
}

#[test]
fn what_is_under_way_is_bounded() {
    let volume = SimVolume::new(1);
    let config = config()
        .with_own_thread(false)
        .with_queue_bytes(3 * BLOCK as u64);
    let slab = BlockSlab::on_volume(volume.handle(), config).unwrap();
    let first = slab.put((0..3).map(block).collect());
    let failure = slab.put(vec![block(3)]).wait().unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Busy);
    assert_eq!(failure.into_parts().1.len(), 1);
    assert!(first.wait().unwrap().iter().all(Result::is_ok));
    put_all(&slab, 3..9);
    assert_eq!(slab.stats().busy, 1, "a put that is alone may be larger");
    let unaligned = BufferMut::zeroed(BLOCK + 8, 4096).unwrap().split_off(8);
    let copied = slab.put(vec![BlockPut {
        payload: unaligned,
        ..block(10)
    }]);
    let failure = slab.put((11..13).map(block).collect()).wait().unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::Busy, "a copy counts, too");
    assert!(copied.wait().unwrap().iter().all(Result::is_ok));
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_was_cut_off_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let slab = BlockSlab::open(directory.path(), config()).unwrap();
    put_all(&slab, 0..15);
    let error = BlockSlab::open(directory.path(), config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    slab.close().unwrap();
    let cut = |name: &str, len| {
        let file = std::fs::File::options()
            .write(true)
            .open(directory.path().join(name));
        file.unwrap().set_len(len).unwrap();
    };
    cut("TABLE-A", 100);
    cut("SLAB", 4096);
    cut("BLOCKS-00000001", 50_000);
    let slab = BlockSlab::open(directory.path(), config()).unwrap();
    let damage = &slab.recovery_report().damage;
    let structures: Vec<_> = damage.iter().map(|it| it.structure).collect();
    assert_eq!(structures, ["superblock", "block table", "segment header"]);
    let lost = (0..15).filter(|&key| fetch(&slab, key).is_some()).count();
    assert_eq!(lost, 5);
}
