//! The simulated volume beside the conformance suite of volumes, and its own promises.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultRates, Latency, SimVolume, Survival};
use tier_nvme::{FileName, VolumeFile, conformance};

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

/// Transfers that nobody waits for need somebody who steps.
#[test]
fn with_latency_it_is_a_volume_like_every_other() {
    let volumes = std::sync::Mutex::new(Vec::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let open: Vec<SimVolume> = volumes.lock().unwrap().clone();
                open.iter().for_each(SimVolume::settle_all);
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let checked = conformance::check_all(&|| {
            let volume = SimVolume::new(1);
            volume.set_latency(Some(Latency::of_flash()));
            volume.set_faults(FaultRates {
                short_transfers: 300,
                interruptions: 100,
                ..FaultRates::default()
            });
            volumes.lock().unwrap().push(volume.clone());
            Ok(volume.handle())
        });
        let checked = checked.map_err(|error| error.to_string());
        done.store(true, Ordering::Release);
        checked.unwrap();
    });
    let volumes = volumes.into_inner().unwrap();
    let sum = |count: fn(&SimVolume) -> u64| volumes.iter().map(count).sum::<u64>();
    assert!(sum(|volume| volume.counts().short_transfers) > 100);
    assert!(sum(|volume| volume.counts().interruptions) > 50);
    assert!(sum(|volume| volume.counts().reordered) > 100);
}

/// A durable file of `pages` pages of the numbers from 1.
fn numbered(volume: &SimVolume, text: &str, pages: u8) -> std::sync::Arc<dyn VolumeFile> {
    let handle = volume.handle();
    let file = handle.create(&name(text), 4096 * u64::from(pages)).unwrap();
    for number in 0..pages {
        file.write(4096 * u64::from(number), page(number + 1))
            .wait()
            .unwrap();
    }
    file.sync().wait().unwrap();
    handle.sync_directory().unwrap();
    file
}

#[test]
fn what_is_in_flight_completes_out_of_order_and_is_torn_by_a_power_loss() {
    let (mut old, mut new, mut torn) = (0, 0, 0);
    for seed in 0..100 {
        let volume = SimVolume::new(seed);
        let file = numbered(&volume, "file", 2);
        volume.set_latency(Some(Latency::of_flash()));
        let first = file.write(0, page(11));
        let second = file.write(4096, page(12));
        assert!(volume.step() && (first.is_done() ^ second.is_done()));
        assert_eq!(volume.in_flight(), 1);
        volume.crash();
        for transfer in [first, second] {
            drop(transfer.wait());
        }
        volume.set_latency(None);
        let file = volume.handle().open(&name("file")).unwrap();
        for number in 0..2_u8 {
            let bytes = file.read(4096 * u64::from(number), page(0)).wait().unwrap();
            match bytes.iter().filter(|&&byte| byte == number + 11).count() {
                0 => old += 1,
                4096 => new += 1,
                _ => torn += 1,
            }
        }
        assert_eq!(volume.counts().cut_off, 1);
    }
    assert!(old > 20 && new > 20 && torn > 20, "{old} {new} {torn}");
}

#[test]
fn the_writes_of_a_dead_process_arrive_before_its_file_is_settled() {
    let (mut before, mut after) = (0, 0);
    for seed in 0..100 {
        let volume = SimVolume::new(seed);
        let file = numbered(&volume, "file", 2);
        volume.set_latency(Some(Latency::of_flash()));
        let write = file.write(0, page(9));
        volume.kill();
        assert!(write.wait().is_err());
        volume.set_latency(None);
        let handle = volume.handle();
        handle.sync_directory().unwrap();
        let file = handle.open(&name("file")).unwrap();
        let early = file.read(0, page(0)).wait().unwrap()[0];
        handle.settle(&name("file")).unwrap();
        assert_eq!(file.read(0, page(0)).wait().unwrap()[0], 9);
        match early {
            9 => before += 1,
            _ => after += 1,
        }
    }
    assert!(before > 5 && after > 5, "{before} before, {after} after");
}

#[test]
fn a_lying_disk_reads_and_writes_elsewhere_and_flips_bits() {
    let lying = |rates: FaultRates| {
        let volume = SimVolume::new(3);
        let file = numbered(&volume, "file", 8);
        numbered(&volume, "other", 8);
        volume.set_faults(rates);
        (volume, file)
    };
    let (volume, file) = lying(FaultRates {
        misdirected_reads: 1000,
        ..FaultRates::default()
    });
    let read = file.read(0, page(0)).wait().unwrap();
    assert!((1..=8).contains(&read[0]) && read.iter().all(|&byte| byte == read[0]));
    assert_eq!(volume.counts().misdirected_reads, 1);

    let (volume, file) = lying(FaultRates {
        misdirected_writes: 1000,
        ..FaultRates::default()
    });
    file.write(0, page(77)).wait().unwrap();
    volume.set_faults(FaultRates::default());
    assert_eq!(
        file.read(0, page(0)).wait().unwrap()[0],
        1,
        "not where it should be"
    );
    volume.crash_keeping(Survival::Nothing);
    let handle = volume.handle();
    let found = ["file", "other"].into_iter().filter(|text| {
        let file = handle.open(&name(text)).unwrap();
        (0..8).any(|at| file.read(4096 * at, page(0)).wait().unwrap()[0] == 77)
    });
    assert_eq!(found.count(), 1, "it is somewhere else for good");

    let (volume, file) = lying(FaultRates {
        flipped_reads: 1000,
        ..FaultRates::default()
    });
    let wrong = file.read(0, page(0)).wait().unwrap();
    assert_eq!(
        wrong
            .iter()
            .map(|byte| (byte ^ 1).count_ones())
            .sum::<u32>(),
        1
    );
    volume.set_faults(FaultRates {
        flipped_writes: 1000,
        ..FaultRates::default()
    });
    file.write(0, page(0)).wait().unwrap();
    volume.set_faults(FaultRates::default());
    let wrong = file.read(0, page(0)).wait().unwrap();
    assert_eq!(wrong.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    assert_eq!(
        (
            volume.counts().flipped_reads,
            volume.counts().flipped_writes
        ),
        (1, 1)
    );
}

#[test]
fn time_moves_only_when_it_is_stepped() {
    let volume = SimVolume::new(1);
    let file = numbered(&volume, "file", 1);
    let clock = volume.clock();
    assert_eq!(clock.now(), Duration::ZERO);
    let long = Duration::from_secs(3600);
    volume.set_latency(Some(Latency::between(long, long)));
    let write = file.write(0, page(5));
    clock.advance(long - Duration::from_nanos(1));
    assert!(!write.is_done());
    clock.advance(Duration::from_nanos(1));
    assert!(write.is_done());
    let write = file.write(0, page(6));
    write.cancel();
    assert_eq!(write.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(clock.now(), 2 * long, "who waits steps");
}
