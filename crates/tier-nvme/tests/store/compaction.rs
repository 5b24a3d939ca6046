//! Dead space is given back; nothing that lives is lost on the way, whoever writes meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use tier_nvme::sim::{Random, SimVolume};
use tier_nvme::{BackgroundStep, FileName, NvmeError, NvmeStore, StorageConfig, WriteBatch};

const SEGMENT_BYTES: u64 = 64 << 10;

/// Nothing is compacted before it is asked for.
fn config() -> StorageConfig {
    StorageConfig::default()
        .with_segment_bytes(SEGMENT_BYTES)
        .with_space_amplification_max(1000.0)
}

fn open(volume: &SimVolume) -> NvmeStore {
    NvmeStore::on_volume(volume.handle(), config()).unwrap()
}

fn value(number: usize, round: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i + 7 * number) as u8 ^ round).collect()
}

fn segments(volume: &SimVolume) -> Vec<String> {
    let names = volume.files().into_iter().map(|(name, _)| name);
    names.filter(|name| name.starts_with("SEGMENT")).collect()
}

/// Every third of 30 values of 6000 bytes is left.
fn fragmented(volume: &SimVolume) -> NvmeStore {
    let store = open(volume);
    for number in 0..30 {
        store
            .write_aligned(format!("key {number:02}"), &value(number, 0, 6000))
            .unwrap();
    }
    for number in (0..30).filter(|number| number % 3 > 0) {
        store.delete(format!("key {number:02}")).unwrap();
    }
    store
}

fn assert_thirds(store: &NvmeStore) {
    assert_eq!(store.len(), 10);
    for number in (0..30).step_by(3) {
        let read = store.read_direct(format!("key {number:02}")).unwrap();
        assert_eq!(read.as_deref(), Some(value(number, 0, 6000).as_slice()));
    }
}

#[test]
fn survivors_move_and_their_segments_go() {
    let volume = SimVolume::new(1);
    let store = fragmented(&volume);
    let before = store.stats();
    let report = store.compact().unwrap();
    let after = store.stats();
    assert!(report.segments_compacted >= 3, "{report:?}");
    assert_eq!(
        report.segments_removed,
        after.segments_removed - before.segments_removed
    );
    assert!(report.values_moved >= 6 && report.moves_lost == 0 && report.damage.is_empty());
    assert!(
        after.reserved_bytes <= before.reserved_bytes - 2 * SEGMENT_BYTES,
        "{after:?}"
    );
    assert!(after.space_amplification() < before.space_amplification());
    assert!(after.dead_bytes() < before.dead_bytes());
    assert_eq!(after.live_bytes, before.live_bytes);
    assert_eq!(segments(&volume).len() as u64, after.segments);
    assert_thirds(&store);
    let again = store.compact().unwrap();
    assert!(again.values_moved <= 3, "what was moved stays: {again:?}");
    assert!(store.verify().unwrap().is_whole());
    volume.crash();
    drop(store);
    let store = open(&volume);
    assert_thirds(&store);
    store.close().unwrap();
    let store = open(&volume);
    assert_thirds(&store);
    assert!(store.verify().unwrap().is_whole());
}

#[test]
fn small_values_are_packed() {
    let volume = SimVolume::new(1);
    let store = open(&volume);
    for number in 0..60 {
        store
            .write_aligned(format!("{number}"), &value(number, 0, 50))
            .unwrap();
    }
    let before = store.stats();
    assert!(before.segments > 7, "a batch of two pages for each");
    store.compact().unwrap();
    let after = store.stats();
    assert!(after.segments <= 3, "{after:?}");
    assert_eq!(after.live_bytes, 60 * 50);
    for number in 0..60 {
        let read = store.read_direct(format!("{number}")).unwrap();
        assert_eq!(read.as_deref(), Some(value(number, 0, 50).as_slice()));
    }
}

/// Steps until the compaction is done, calling `between` before each step.
fn step_all(store: &NvmeStore, mut between: impl FnMut(u64)) -> u64 {
    for step in 0..10_000 {
        between(step);
        match store.step_background(Duration::from_secs(step)).unwrap() {
            BackgroundStep::Idle => return step,
            BackgroundStep::Again | BackgroundStep::NotBefore(_) => {}
        }
    }
    panic!("it never ends");
}

#[test]
fn writers_win_against_moves_under_way() {
    for seed in 0..60 {
        let volume = SimVolume::new(seed);
        let store = fragmented(&volume);
        let mut random = Random::new(seed);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = (0..30)
            .step_by(3)
            .map(|number| {
                let key = format!("key {number:02}").into_bytes();
                (key, value(number, 0, 6000))
            })
            .collect();
        store.begin_compaction().unwrap();
        step_all(&store, |step| {
            if step > 200 || !random.chance(600) {
                return;
            }
            let number = random.below(30) as usize;
            let key = format!("key {number:02}").into_bytes();
            if random.chance(400) {
                store.delete(&key).unwrap();
                model.remove(&key);
            } else {
                let value = value(number, step as u8, 100 * number);
                store.write_aligned(&key, &value).unwrap();
                model.insert(key, value);
            }
        });
        let held = |store: &NvmeStore| -> BTreeMap<_, _> {
            let keys = store.keys_with_prefix("").into_iter();
            keys.map(|key| {
                (
                    key.clone(),
                    store.read_direct(&key).unwrap().unwrap().to_vec(),
                )
            })
            .collect()
        };
        assert_eq!(held(&store), model, "seed {seed}");
        volume.crash();
        drop(store);
        let store = open(&volume);
        assert_eq!(held(&store), model, "seed {seed} after a power loss");
        assert!(store.verify().unwrap().is_whole());
    }
}

#[test]
fn a_move_that_comes_late_changes_nothing() {
    let volume = SimVolume::new(1);
    let (mut lost, mut steps) = (0, 0);
    // Each change comes between the same two steps of an otherwise identical compaction.
    for at in 0..60 {
        let volume = volume.fork(at);
        let store = fragmented(&volume);
        store.begin_compaction().unwrap();
        steps += step_all(&store, |step| {
            if step == at {
                let mut batch = WriteBatch::new();
                for number in (0..30).step_by(3) {
                    let key = format!("key {number:02}");
                    batch = match number % 2 {
                        0 => batch.delete(key),
                        _ => batch.put(key, vec![1, 2, 3]),
                    };
                }
                store.write_batch(batch).unwrap();
            }
        });
        lost += store.stats().moves_lost;
        volume.crash();
        drop(store);
        let store = open(&volume);
        assert_eq!(store.len(), 5, "no deleted key came back");
        for key in store.keys_with_prefix("") {
            assert_eq!(
                store.read_direct(&key).unwrap().as_deref(),
                Some(&[1, 2, 3][..])
            );
        }
    }
    assert!(lost > 0 && steps > 100, "{lost} {steps}");
}

#[test]
fn background_work_is_held_to_its_rate() {
    let volume = SimVolume::new(1);
    let slow = config().with_compaction_bytes_per_second(Some(8192));
    drop(fragmented(&volume));
    let store = NvmeStore::on_volume(volume.handle(), slow).unwrap();
    store.begin_compaction().unwrap();
    let (mut now, mut waits) = (Duration::ZERO, 0);
    loop {
        match store.step_background(now).unwrap() {
            BackgroundStep::Again => {}
            BackgroundStep::NotBefore(time) => {
                assert!(time > now);
                assert_eq!(
                    store.step_background(now).unwrap(),
                    BackgroundStep::NotBefore(time)
                );
                (now, waits) = (time, waits + 1);
            }
            BackgroundStep::Idle => break,
        }
    }
    let moved = store.stats().bytes_moved;
    assert!(waits > 2 && moved > 0);
    let allowed = now.as_secs_f64() * 8192.0 + 16384.0;
    assert!(moved as f64 <= allowed, "{moved} bytes by {now:?}");
    assert_thirds(&store);
}

#[test]
fn writers_wait_for_the_limit_on_dead_space() {
    let volume = SimVolume::new(1);
    let tight = config().with_space_amplification_max(1.5);
    let store = NvmeStore::on_volume(volume.handle(), tight).unwrap();
    let live = 40;
    for round in 0..20_u8 {
        for number in 0..live {
            // A part of every segment stays alive.
            if number % 4 > 0 || round == 0 {
                let key = format!("key {number}");
                store
                    .write_aligned(key, &value(number, round, 5000))
                    .unwrap();
            }
            let stats = store.stats();
            let allowed = stats.live_log_bytes * 3 / 2 + 5 * SEGMENT_BYTES;
            assert!(stats.reserved_bytes <= allowed, "round {round}: {stats:?}");
        }
    }
    let stats = store.stats();
    assert!(
        stats.compactions_finished > 0 && stats.values_moved > 0,
        "{stats:?}"
    );
    for number in 0..live {
        let round = if number % 4 > 0 { 19 } else { 0 };
        let read = store.read_direct(format!("key {number}")).unwrap();
        assert_eq!(read.as_deref(), Some(value(number, round, 5000).as_slice()));
    }
}

#[test]
fn long_values_are_not_moved_for_nothing() {
    let tight = config().with_space_amplification_max(1.25);
    let store = NvmeStore::on_volume(SimVolume::new(1).handle(), tight).unwrap();
    for number in 0..20 {
        store
            .write_aligned(format!("{number}"), &value(number, 0, 40_000))
            .unwrap();
    }
    let stats = store.stats();
    assert_eq!(stats.values_moved, 0);
    assert!(stats.space_amplification() > 1.3 && stats.compactions_begun <= 20);
    assert_eq!(store.compact().unwrap().values_moved, 0);
}

/// Moves that fill as many segments as they empty once kept a writer for good: pairs of a short value and one of two
/// pages fill a batch, of which a third is pages that are not full.
#[test]
fn no_writer_waits_for_moves_that_gain_nothing() {
    const OPERATIONS_PER_CALL: u64 = 2_000;
    let tight = config().with_space_amplification_max(1.25);
    let volume = SimVolume::new(1);
    let store = NvmeStore::on_volume(volume.handle(), tight).unwrap();
    for number in 0..80 {
        let len = if number % 2 == 0 { 2000 } else { 8192 };
        volume.fail_power_after(OPERATIONS_PER_CALL);
        store
            .write_aligned(format!("key {number}"), &value(number, 0, len))
            .unwrap();
    }
    let stats = store.stats();
    assert!(
        stats.writers_held > 0 && stats.space_exceeded > 0,
        "{stats:?}"
    );
    assert_eq!(stats.values_moved, 0, "{stats:?}");
}

#[test]
fn a_damaged_value_stays_and_is_reported() {
    let volume = SimVolume::new(1);
    let store = fragmented(&volume);
    // The second value of the first segment that lives is "key 03"; values are 6000 bytes in batches of three pages.
    let at = 4096 + 3 * 3 * 4096 + 4096 + 100;
    assert!(volume.flip_bit(&segments(&volume)[0], at * 8));
    let report = store.compact().unwrap();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].key.as_deref(), Some(&b"key 03"[..]));
    assert!(matches!(
        store.read_direct("key 03"),
        Err(NvmeError::Corrupt { .. })
    ));
    let first = segments(&volume)[0].clone();
    assert_eq!(first, "SEGMENT-0000000000000001", "the segment is kept");
    for number in (0..30).step_by(3).filter(|number| *number != 3) {
        let read = store.read_direct(format!("key {number:02}")).unwrap();
        assert_eq!(read.as_deref(), Some(value(number, 0, 6000).as_slice()));
    }
    assert!(volume.flip_bit(&first, at * 8));
    let report = store.compact().unwrap();
    assert!(
        report.damage.is_empty() && report.values_moved >= 1,
        "{report:?}"
    );
    assert_ne!(segments(&volume)[0], first, "it went once it could");
    assert_thirds(&store);
}

#[test]
fn behind_a_damaged_header_survivors_are_found_by_the_index() {
    let volume = SimVolume::new(1);
    let store = fragmented(&volume);
    let first = segments(&volume)[0].clone();
    assert!(volume.flip_bit(&first, (4096 + 3 * 4096 + 20) * 8));
    let report = store.compact().unwrap();
    assert_eq!(report.damage.len(), 1, "{report:?}");
    assert_eq!(report.damage[0].structure, "batch header");
    assert_ne!(
        segments(&volume)[0],
        first,
        "everything was moved out of it"
    );
    assert_thirds(&store);
}

#[test]
fn a_missing_segment_is_reported_and_nothing_else_is_lost() {
    let volume = SimVolume::new(1);
    fragmented(&volume).close().unwrap();
    let first = FileName::new(segments(&volume)[0].clone()).unwrap();
    volume.handle().remove(&first).unwrap();
    let store = open(&volume);
    assert!(!store.recovery_report().damage.is_empty());
    store.compact().unwrap();
    let (mut missing, mut read) = (0, 0);
    for key in store.keys_with_prefix("") {
        match store.read_direct(&key) {
            Ok(_) => read += 1,
            Err(NvmeError::Corrupt { .. }) => missing += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((missing + read, missing > 0, read > 5), (10, true, true));
}

#[test]
fn a_mapped_segment_is_left_alone() {
    let volume = SimVolume::new(1);
    let store = fragmented(&volume);
    let map = store.map_value("key 03").unwrap().unwrap();
    let first = segments(&volume)[0].clone();
    let report = store.compact().unwrap();
    assert_eq!(report.segments_pinned, 1, "{report:?}");
    assert_eq!(segments(&volume)[0], first);
    assert_eq!(&*map, value(3, 0, 6000).as_slice());
    drop(map);
    assert_eq!(store.compact().unwrap().segments_pinned, 0);
    assert_ne!(segments(&volume)[0], first);
    assert_thirds(&store);
}

#[test]
fn a_store_from_before_moves_names_them_first() {
    let volume = SimVolume::new(1);
    fragmented(&volume).close().unwrap();
    super::change_superblock(&volume, 16, 0);
    let features = |volume: &SimVolume| {
        let file = volume
            .handle()
            .open(&FileName::new("STORE").unwrap())
            .unwrap();
        let target = core_view::BufferMut::zeroed(4096, 4096).unwrap();
        file.read(4096, target).wait().unwrap()[16]
    };
    let store = open(&volume);
    store.write_aligned("key 99", b"x").unwrap();
    assert_eq!(features(&volume), 0);
    store.compact().unwrap();
    assert_eq!(features(&volume), 1);
    store.delete("key 99").unwrap();
    assert_thirds(&store);
    store.close().unwrap();
    assert_thirds(&open(&volume));
}

/// Segments go only when neither checkpoint needs them: either may turn out to be damaged.
#[test]
fn at_each_step_of_a_compaction_one_checkpoint_is_enough() {
    let volume = SimVolume::new(1);
    let store = fragmented(&volume);
    store.begin_compaction().unwrap();
    let steps = step_all(&store, |_| {
        for (seed, name) in ["CHECKPOINT-A", "CHECKPOINT-B"].into_iter().enumerate() {
            let copy = volume.fork(seed as u64);
            assert!(copy.flip_bit(name, 8 * 50));
            let reopened = open(&copy);
            assert_thirds(&reopened);
            assert_eq!(reopened.recovery_report().damage.len(), 1);
        }
    });
    assert!(store.stats().segments_removed > 0 && steps > 30);
}
