//! Verifying in parts, at a rate, and without values.

use std::time::{Duration, Instant};

use tier_nvme::sim::SimVolume;
use tier_nvme::{NvmeStore, StorageConfig, VerifyOptions, VerifyPosition};

const VALUES: u64 = 40;
const VALUE_BYTES: u64 = 9000;

fn filled(volume: &SimVolume) -> NvmeStore {
    let config = StorageConfig::default().with_segment_bytes(64 << 10);
    let store = NvmeStore::on_volume(volume.handle(), config).unwrap();
    for number in 0..VALUES {
        store
            .write_aligned(format!("{number}"), &[number as u8; VALUE_BYTES as usize])
            .unwrap();
    }
    store
}

#[test]
fn parts_together_read_everything_once() {
    let volume = SimVolume::new(1);
    let store = filled(&volume);
    let whole = store.verify().unwrap();
    assert_eq!(whole.values_checked, VALUES);
    assert!(whole.is_whole() && whole.stopped_at.is_none());
    let mut options = VerifyOptions::default().with_bytes_max(Some(30_000));
    let (mut parts, mut values, mut structures) = (0, 0, 0);
    loop {
        let part = store.verify_with(&options).unwrap();
        (parts, values) = (parts + 1, values + part.values_checked);
        structures += part.structures_checked;
        assert!(part.bytes_checked < 100_000, "{part:?}");
        let Some(position) = part.stopped_at else {
            break;
        };
        options = options.with_start(VerifyPosition::from_u64(position.to_u64()));
    }
    assert!(parts > 5, "{parts}");
    assert_eq!((values, structures), (VALUES, whole.structures_checked));
}

#[test]
fn a_part_finds_the_damage_that_is_in_it() {
    let volume = SimVolume::new(1);
    let store = filled(&volume);
    let names = volume.files().into_iter().map(|(name, _)| name);
    let segment = names
        .filter(|name| name.starts_with("SEGMENT"))
        .nth(3)
        .unwrap();
    assert!(volume.flip_bit(&segment, (4096 + 4096 + 10) * 8));
    let mut options = VerifyOptions::default().with_bytes_max(Some(1));
    let mut damaged = Vec::new();
    for part in 0.. {
        let report = store.verify_with(&options).unwrap();
        if !report.is_whole() {
            damaged.push(part);
        }
        let Some(position) = report.stopped_at else {
            break;
        };
        options = options.with_start(position);
    }
    assert_eq!(damaged, [3]);
    let structures = store.verify_structures().unwrap();
    assert!(structures.is_whole(), "a value is none");
    assert_eq!(structures.values_checked, 0);
    assert!(volume.flip_bit(&segment, (4096 + 10) * 8));
    assert!(!store.verify_structures().unwrap().is_whole());
}

#[test]
fn a_rate_is_kept() {
    let volume = SimVolume::new(1);
    let store = filled(&volume);
    let begun = Instant::now();
    let rate = VerifyOptions::default().with_bytes_per_second_max(Some(VALUES * VALUE_BYTES * 5));
    assert!(store.verify_with(&rate).unwrap().is_whole());
    assert!(begun.elapsed() >= Duration::from_millis(200));
}
