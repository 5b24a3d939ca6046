//! The simulated volume beside the conformance suite of volumes, and its own promises.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use core_view::BufferMut;
use tier_nvme::sim::{FaultRates, SimVolume};
use tier_nvme::{FileName, conformance};

fn name(text: &str) -> FileName {
    FileName::new(text).unwrap()
}

fn page(byte: u8) -> BufferMut {
    let mut page = BufferMut::zeroed(4096, 4096).unwrap();
    page.fill(byte);
    page
}

#[test]
fn it_is_a_volume_like_every_other() {
    conformance::check_all(&|| Ok(SimVolume::new(1).handle())).unwrap();
}

/// A file whose first page was synced as ones and then overwritten with twos, after a crash.
fn after_crash(seed: u64) -> Vec<u8> {
    let volume = SimVolume::new(seed);
    let handle = volume.handle();
    let file = handle.create(&name("file"), 4096).unwrap();
    file.write(0, page(1)).wait().unwrap();
    file.sync().wait().unwrap();
    handle.sync_directory().unwrap();
    file.write(0, page(2)).wait().unwrap();
    volume.crash();
    let file = volume.handle().open(&name("file")).unwrap();
    file.read(0, page(0)).wait().unwrap().to_vec()
}

#[test]
fn what_was_not_synced_survives_in_part_by_the_seed() {
    let (mut old, mut new, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let bytes = after_crash(seed);
        assert_eq!(
            bytes,
            after_crash(seed),
            "seed {seed} gives the same bytes again"
        );
        for sector in bytes.chunks(512) {
            assert!(
                sector.iter().all(|&byte| byte == sector[0]),
                "a sector does not tear"
            );
            assert!([1, 2].contains(&sector[0]));
        }
        match bytes.iter().filter(|&&byte| byte == 2).count() {
            0 => old += 1,
            4096 => new += 1,
            _ => torn += 1,
        }
    }
    assert!(
        old > 20 && new > 20 && torn > 20,
        "{old} old, {new} new, {torn} torn"
    );
}

#[test]
fn directory_changes_vanish_until_they_are_synced() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..200 {
        let volume = SimVolume::new(seed);
        let handle = volume.handle();
        handle.create(&name("synced"), 4096).unwrap();
        handle.sync_directory().unwrap();
        handle.create(&name("not-synced"), 4096).unwrap();
        volume.crash();
        let names = volume.handle().list().unwrap();
        assert!(names.contains(&name("synced")));
        if names.contains(&name("not-synced")) {
            kept += 1
        } else {
            lost += 1
        }
        assert!(
            handle.list().is_err(),
            "a handle from before the crash reaches nothing"
        );
    }
    assert!(kept > 20 && lost > 20, "{kept} kept, {lost} lost");
}

#[test]
fn a_failed_sync_forgets_writes_that_reads_still_see() {
    let mut forgotten = 0;
    for seed in 0..50 {
        let volume = SimVolume::new(seed);
        let handle = volume.handle();
        let file = handle.create(&name("file"), 4096).unwrap();
        file.sync().wait().unwrap();
        handle.sync_directory().unwrap();
        file.write(0, page(1)).wait().unwrap();
        volume.set_faults(FaultRates {
            sync_errors: 1000,
            ..FaultRates::default()
        });
        assert!(file.sync().wait().is_err());
        volume.set_faults(FaultRates::default());
        file.sync().wait().unwrap();
        assert_eq!(file.read(0, page(0)).wait().unwrap()[0], 1);
        volume.crash();
        let file = volume.handle().open(&name("file")).unwrap();
        forgotten += u32::from(file.read(0, page(9)).wait().unwrap()[0] == 0);
    }
    assert!(forgotten > 5, "{forgotten}");
}
