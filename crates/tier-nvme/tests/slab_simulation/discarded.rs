//! Records that a recovery discarded stay away, whatever is written in their place.

use core_view::contract::BlockStore;
use tier_nvme::BlockSlab;
use tier_nvme::sim::{SimVolume, Survival};

use super::{Model, Value, check_contents, config};

const FIRST: Value = Value { tag: 11, len: 4096 };
const SECOND: Value = Value { tag: 22, len: 500 };

/// Where the log of a segment begins, and so the first record of an epoch.
const LOG_AT: u64 = 4096;
/// Where the first slot begins.
const SLOTS_AT: u64 = LOG_AT + (32 << 10);

fn open(volume: &SimVolume) -> BlockSlab {
    // Without a sync for each change several records are unsynced at once.
    BlockSlab::on_volume(volume.handle(), config().with_durable(false)).unwrap()
}

fn put(slab: &BlockSlab, key: u128, value: Value) {
    for item in slab.put(vec![value.put(key, true)]).wait().unwrap() {
        item.unwrap();
    }
}

/// A disk with a slab that has a segment, no blocks, and was closed.
fn closed() -> SimVolume {
    let volume = SimVolume::new(1);
    let slab = open(&volume);
    put(&slab, 1, FIRST);
    assert_eq!(
        slab.remove(&[core_view::contract::BlockKey(1)])
            .wait()
            .unwrap(),
        [true]
    );
    slab.close().unwrap();
    volume
}

fn cut(volume: &SimVolume, slab: BlockSlab, survival: Survival) {
    volume.crash_keeping(survival);
    drop(slab);
}

fn segment(volume: &SimVolume) -> String {
    let names = volume.files().into_iter().map(|(name, _)| name);
    names
        .min_by_key(|name| !name.starts_with("BLOCKS-"))
        .unwrap()
}

#[test]
fn a_discarded_record_does_not_follow_the_same_record_written_again() {
    let volume = closed();
    let slab = open(&volume);
    put(&slab, 1, FIRST);
    put(&slab, 2, SECOND);
    cut(&volume, slab, Survival::Everything);
    assert!(volume.flip_bit(&segment(&volume), (SLOTS_AT + 100) * 8));
    let slab = open(&volume);
    assert_eq!(slab.recovery_report().tail_records_discarded, 2);
    check_contents(&slab, &Model::new(), "both are discarded");
    put(&slab, 1, FIRST);
    cut(&volume, slab, Survival::Everything);
    let model = Model::from([(1, FIRST)]);
    check_contents(&open(&volume), &model, "the first is written again");
}

/// The last sectors of a record reach the disk when a later record, with the same ones, is torn in its place.
#[test]
fn a_torn_record_that_was_discarded_is_not_completed_later() {
    let volume = closed();
    let slab = open(&volume);
    put(&slab, 1, FIRST);
    cut(&volume, slab, Survival::Everything);
    let segment = segment(&volume);
    let late_sector = (LOG_AT + 3 * 512) * 8;
    assert!(volume.flip_bit(&segment, late_sector));
    let slab = open(&volume);
    check_contents(&slab, &Model::new(), "it is discarded");
    cut(&volume, slab, Survival::Everything);
    assert!(volume.flip_bit(&segment, late_sector));
    check_contents(&open(&volume), &Model::new(), "it is whole again");
}
