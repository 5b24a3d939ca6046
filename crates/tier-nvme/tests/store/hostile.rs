//! Bytes on disk that nobody wrote, behind checksums that are right.

use core_view::BufferMut;
use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultRates, SimVolume};
use tier_nvme::{FileName, NvmeError, NvmeStore};

use super::{config, open};

const PAGE: usize = 4096;
const SEGMENT: &str = "SEGMENT-0000000000000001";
const CHECKPOINTS: [&str; 2] = ["CHECKPOINT-A", "CHECKPOINT-B"];

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Lets `change` do what it likes with a page of a file.
fn change_page(volume: &SimVolume, name: &str, offset: usize, change: impl FnOnce(&mut [u8])) {
    let file = volume.handle().open(&FileName::new(name).unwrap()).unwrap();
    let page = BufferMut::zeroed(PAGE, PAGE).unwrap();
    let mut page = file.read(offset as u64, page).wait().unwrap();
    change(&mut page);
    file.write(offset as u64, page).wait().unwrap();
    file.sync().wait().unwrap();
}

fn put(page: &mut [u8], at: usize, field: &[u8]) {
    page[at..at + field.len()].copy_from_slice(field);
}

/// Changes a field of a page that ends with its checksum.
fn change_field(volume: &SimVolume, name: &str, offset: usize, at: usize, field: &[u8]) {
    change_page(volume, name, offset, |page| {
        put(page, at, field);
        let checksum = crc(&page[..PAGE - 4]).to_le_bytes();
        put(page, PAGE - 4, &checksum);
    });
}

/// Changes a field of the one block of a checkpoint's body.
fn change_body(volume: &SimVolume, name: &str, at: usize, field: &[u8]) {
    let mut seed = [0; 32];
    change_page(volume, name, 0, |page| {
        seed[..24].copy_from_slice(&page[16..40])
    });
    change_page(volume, name, PAGE, |page| {
        put(page, 8 + at, field);
        let len = u32::from_le_bytes(page[..4].try_into().unwrap()) as usize;
        let checksum = crc(&[&seed[..], &page[8..8 + len]].concat()).to_le_bytes();
        put(page, 4, &checksum);
    });
}

/// A closed store of one segment and one key, `"a"` with 5000 bytes.
fn closed() -> SimVolume {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    store.write_aligned("a", &[7; 5000]).unwrap();
    store.close().unwrap();
    volume
}

/// The checkpoints are refused and the whole log, which is all there, is used in their place.
fn check_replayed(volume: &SimVolume, what: &str) {
    let store = open(volume);
    let report = store.recovery_report();
    assert!(report.without_checkpoint, "{what}: {report:?}");
    assert_eq!(
        store.read_direct("a").unwrap().as_deref(),
        Some(&[7; 5000][..])
    );
    store.write_aligned("b", &[8; 5000]).unwrap();
    store.close().unwrap();
    let store = open(volume);
    assert!(store.verify().unwrap().is_whole(), "{what}");
    assert_eq!(store.len(), 2, "{what}");
}

#[test]
fn a_checkpoint_header_that_lies_is_no_checkpoint() {
    let wrong: [(&str, usize, u64); 13] = [
        ("generation", 32, u64::MAX),
        ("sequence", 40, u64::MAX),
        ("segment id", 56, u64::MAX),
        ("segment id", 56, 0),
        ("offset", 64, u64::MAX),
        ("offset", 64, u64::MAX - 4095),
        ("offset", 64, 1 << 40),
        ("offset", 64, 4097),
        ("offset", 64, 0),
        ("entries", 72, u64::MAX),
        ("entries", 72, 0),
        ("body", 80, u64::MAX),
        ("body", 80, 16),
    ];
    for (field, at, value) in wrong {
        let volume = closed();
        for name in CHECKPOINTS {
            change_field(&volume, name, 0, at, &value.to_le_bytes());
        }
        check_replayed(&volume, &format!("{field} {value:#x}"));
    }
    for count in [0, u32::MAX] {
        let volume = closed();
        for name in CHECKPOINTS {
            change_field(&volume, name, 0, 52, &count.to_le_bytes());
        }
        check_replayed(&volume, &format!("{count} segments"));
    }
}

#[test]
fn a_checkpoint_body_that_lies_is_no_checkpoint() {
    // The body: a segment of 16 bytes, then the entry.
    let wrong: [(&str, usize, &[u64]); 9] = [
        ("segment id", 0, &[u64::MAX]),
        ("used bytes", 8, &[u64::MAX]),
        ("used bytes", 8, &[4097]),
        ("segment of the entry", 16, &[9]),
        ("offset", 24, &[u64::MAX]),
        ("offset", 24, &[u64::MAX - 4999]),
        ("length", 32, &[1 << 50, 1 << 50]),
        ("length", 32, &[u64::MAX, u64::MAX]),
        ("length before encoding", 40, &[4999]),
    ];
    for (field, at, values) in wrong {
        let volume = closed();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        for name in CHECKPOINTS {
            change_body(&volume, name, at, &bytes);
        }
        check_replayed(&volume, &format!("{field} {values:x?}"));
    }
    let volume = closed();
    change_body(&volume, CHECKPOINTS[0], 16 + 46, &[1]);
    let store = open(&volume);
    assert!(
        !store.recovery_report().without_checkpoint,
        "the other is whole"
    );
    let report = store.verify().unwrap();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].location, CHECKPOINTS[0]);
}

#[test]
fn a_superblock_with_a_segment_size_out_of_range_is_corrupt() {
    for bytes in [0, 4096, 8192, 100_000, (1 << 40) + 4096, u64::MAX - 4095] {
        let volume = closed();
        for copy in [0, PAGE] {
            change_field(&volume, "STORE", copy, 48, &u64::to_le_bytes(bytes));
        }
        let error = NvmeStore::on_volume(volume.handle(), config()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{bytes}: {error:?}");
    }
}

#[test]
fn a_batch_header_that_lies_about_its_payload_is_named_by_verify() {
    for payload_bytes in [u64::MAX - 4095, u64::MAX - 8191, 1 << 40, 1 << 20] {
        let volume = closed();
        change_page(&volume, SEGMENT, PAGE, |page| {
            put(page, 64, &payload_bytes.to_le_bytes());
            put(page, 76, &[0; 4]);
            let checksum = crc(page).to_le_bytes();
            put(page, 76, &checksum);
        });
        let store = open(&volume);
        let report = store.verify().unwrap();
        assert_eq!(report.damage.len(), 1, "{payload_bytes:#x}: {report:?}");
        assert_eq!(report.damage[0].structure, "batch header");
    }
}

#[test]
fn files_of_others_are_neither_counted_nor_removed() {
    let volume = SimVolume::new(1);
    let make = |name: &str| volume.handle().create(&FileName::new(name).unwrap(), 4096);
    make("notes.new").unwrap();
    let error = NvmeStore::on_volume(volume.handle(), config()).unwrap_err();
    assert!(matches!(error, NvmeError::NotAStore { .. }), "{error:?}");
    assert_eq!(volume.files().len(), 1);

    let volume = closed();
    let make = |name: &str| volume.handle().create(&FileName::new(name).unwrap(), 4096);
    let foreign = ["notes.new", "SEGMENT-ffffffffffffffff", "SEGMENT-1"];
    for name in foreign {
        make(name).unwrap();
    }
    make("CHECKPOINT-A.new").unwrap();
    let store = open(&volume);
    assert_eq!(store.recovery_report().files_removed, 1);
    for key in 0..4_u8 {
        store.write_aligned([key], &[key; 100_000]).unwrap();
    }
    store.close().unwrap();
    assert_eq!(open(&volume).len(), 5);
    let names: Vec<_> = volume.files().into_iter().map(|(name, _)| name).collect();
    assert!(
        foreign
            .iter()
            .all(|name| names.contains(&(*name).to_owned()))
    );
}

#[test]
fn an_acknowledged_batch_is_missed_across_a_payload_of_zeros() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    store.write_aligned("zeros", &[0; 150_000]).unwrap();
    store.write_aligned("after", b"x").unwrap();
    volume.kill();
    drop(store);
    assert!(volume.flip_bit(SEGMENT, (PAGE as u64 + 100) * 8));
    let error = NvmeStore::on_volume(volume.handle(), config()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
}

#[test]
fn what_a_discarded_batch_left_is_erased_though_a_sync_failed() {
    for seed in 0..30 {
        let volume = SimVolume::new(seed);
        let store = open(&volume);
        store.write_aligned("kept", &[1; 50_000]).unwrap();
        store.write_aligned("torn", &[2; 9000]).unwrap();
        volume.kill();
        drop(store);
        // A header page, 13 pages of the first batch, and a header page in front of the torn value.
        assert!(volume.flip_bit(SEGMENT, (16 * PAGE as u64) * 8));
        volume.set_faults(FaultRates {
            sync_errors: 1000,
            ..FaultRates::default()
        });
        let error = NvmeStore::on_volume(volume.handle(), config()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
        volume.set_faults(FaultRates::default());
        let store = open(&volume);
        assert!(!store.contains("torn"));
        // It does not fit where the torn one was.
        store.write_aligned("large", &[3; 220_000]).unwrap();
        store.write_aligned("small", &[4; 10]).unwrap();
        volume.crash();
        drop(store);
        let store = open(&volume);
        let keys: Vec<_> = ["kept", "large", "small"]
            .map(|key| store.contains(key))
            .into();
        assert_eq!(keys, [true; 3], "seed {seed}");
    }
}
