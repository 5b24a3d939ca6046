//! Flipped bits after a clean close.

use core_view::contract::{BlockStore, ErrorKind};
use tier_nvme::BlockSlab;
use tier_nvme::sim::{FaultRates, Random, SimVolume};

use super::life::Branches;
use super::{KEYS, Model, Value, config, fetch, is_value};

/// Flips bits on copies of a cleanly closed disk: each is named by verify, or without consequence.
pub(super) fn check_damage(
    volume: &SimVolume,
    model: &Model,
    random: &mut Random,
    branches: &mut Branches,
) {
    for _ in 0..6 {
        let copy = volume.fork(random.next_u64());
        copy.set_faults(FaultRates::default());
        let files = copy.files();
        let (name, len) = &files[random.below(files.len() as u64) as usize];
        // Headers are at the front, and so are the used parts of tables.
        let range = match random.below(3) {
            0 => *len,
            1 => (*len).min(4096),
            _ => (*len).min(8192),
        };
        let bit = random.below(range * 8);
        assert!(copy.flip_bit(name, bit));
        let whole = check_copy(&copy, model, branches);
        let is_header = bit < 4096 * 8 || (name == "SLAB" && bit < 8192 * 8);
        assert!(!whole || !is_header, "verify missed bit {bit} of {name}");
        branches.add(
            if whole {
                "flips in dead space"
            } else {
                "flips detected"
            },
            1,
        );
    }
}

/// Every block is as it was, or reported.
fn check_copy(copy: &SimVolume, model: &Model, branches: &mut Branches) -> bool {
    let slab = BlockSlab::on_volume(copy.handle(), config().with_read_only(true));
    let slab = slab.unwrap_or_else(|error| panic!("one flipped bit: {error:?}"));
    branches.opened(slab.recovery_report());
    let whole = slab.verify().unwrap().is_whole();
    let listed = slab.list(None, usize::MAX).unwrap();
    let listed: Vec<u128> = listed.iter().map(|entry| entry.key.0).collect();
    assert_eq!(listed, model.keys().copied().collect::<Vec<_>>());
    for (&key, &value) in model {
        match fetch(&slab, key) {
            Ok(found) => assert!(is_value(&found.unwrap(), value)),
            Err(kind) => {
                assert_eq!(kind, ErrorKind::Corrupt);
                assert!(!whole, "verify missed what a fetch found");
            }
        }
    }
    whole
}

/// Flips bits of records on copies of the disk of a killed process: the slab is refused, or every block is one
/// that somebody put, under its own key.
pub(super) fn check_records(volume: &SimVolume, random: &mut Random, branches: &mut Branches) {
    for _ in 0..6 {
        let copy = volume.fork(random.next_u64());
        copy.set_faults(FaultRates::default());
        let page = 1 + random.below(4);
        let bit = (page * 4096 + random.below(1024)) * 8 + random.below(8);
        if !copy.flip_bit("BLOCKS-00000000", bit) {
            return;
        }
        let slab = match BlockSlab::on_volume(copy.handle(), config().with_read_only(true)) {
            Ok(slab) => slab,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
                branches.add("damaged records refused", 1);
                continue;
            }
        };
        for entry in slab.list(None, usize::MAX).unwrap() {
            assert!(entry.key.0 < u128::from(KEYS), "a block that nobody put");
            let found = match fetch(&slab, entry.key.0) {
                Ok(found) => found.unwrap(),
                // The newest record is gone, and the slot that it freed may hold something else by now.
                Err(kind) => {
                    assert_eq!(kind, ErrorKind::Corrupt);
                    continue;
                }
            };
            let Some(tag) = found.1.first_chunk::<8>() else {
                continue;
            };
            let value = Value {
                tag: u64::from_le_bytes(*tag),
                len: found.1.len(),
            };
            assert!(is_value(&found, value), "a block that nobody put");
        }
    }
}

/// A record that was acknowledged and never reached its place is missed, whatever it said.
#[test]
fn a_lost_record_is_missed() {
    for lost in 0..4 {
        let volume = SimVolume::new(lost);
        let slab = BlockSlab::on_volume(volume.handle(), config()).unwrap();
        for tag in 0..5 {
            let value = Value { tag, len: 5000 };
            let items = slab.put(vec![value.put(1, true)]).wait().unwrap();
            assert!(items.iter().all(Result::is_ok));
        }
        volume.kill();
        drop(slab);
        assert!(volume.overwrite("BLOCKS-00000000", 4096 * (1 + lost), &[0; 4096]));
        let error = BlockSlab::on_volume(volume.handle(), config()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    }
}
