//! A disk that reports success and does something else: no wrong byte is ever given out.

use core_view::contract::{BlockKey, BlockStore, ErrorKind};
use std::collections::BTreeMap;
use tier_nvme::BlockSlab;
use tier_nvme::sim::{FaultRates, Random, Seeds, SimVolume};

use super::{COMMAND, Value, config, fetch, is_value};

#[derive(Debug, Default)]
struct Noticed {
    fetches: u64,
    opens: u64,
}

fn live(seed: u64, noticed: &mut Noticed) -> u64 {
    let volume = SimVolume::new(seed);
    let mut random = Random::new(seed ^ 0x11e5);
    let mut slab = BlockSlab::on_volume(volume.handle(), config()).unwrap();
    let mut ever: BTreeMap<u128, Vec<Value>> = BTreeMap::new();
    volume.set_faults(FaultRates {
        misdirected_reads: 10,
        misdirected_writes: 10,
        flipped_reads: 10,
        flipped_writes: 10,
        ..FaultRates::default()
    });
    for _ in 0..150 {
        let key = u128::from(random.below(16));
        match random.below(12) {
            0..=4 => {
                let value = Value::any(&mut random);
                // Also what was refused may be found: a commit that failed may have come through.
                ever.entry(key).or_default().push(value);
                drop(slab.put(vec![value.put(key, true)]).wait());
            }
            5 => drop(slab.remove(&[BlockKey(key)]).wait()),
            6 => {
                volume.kill();
                drop(slab);
                slab = match BlockSlab::on_volume(volume.handle(), config()) {
                    Ok(slab) => slab,
                    Err(error) => {
                        noticed.opens += 1;
                        let kinds = [ErrorKind::Corrupt, ErrorKind::Io, ErrorKind::Unsupported];
                        assert!(kinds.contains(&error.kind()), "{error:?}");
                        break;
                    }
                };
            }
            _ => match fetch(&slab, key) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    let values = ever.get(&key).map(Vec::as_slice).unwrap_or_default();
                    let known = values.iter().any(|value| is_value(&found, *value));
                    assert!(known, "block {key} has bytes that were never put there");
                }
                Err(kind) => {
                    noticed.fetches += 1;
                    let kinds = [ErrorKind::Corrupt, ErrorKind::Io, ErrorKind::Poisoned];
                    assert!(kinds.contains(&kind), "{kind}");
                }
            },
        }
    }
    let counts = volume.counts();
    counts.misdirected_reads
        + counts.misdirected_writes
        + counts.flipped_reads
        + counts.flipped_writes
}

#[test]
fn a_lying_disk_is_never_believed() {
    let (mut noticed, mut lies) = (Noticed::default(), 0);
    let seeds = Seeds::from_environment(100);
    seeds.for_each(COMMAND, |seed| {
        lies += live(seed, &mut noticed);
    });
    println!("{lies} lies, {noticed:?}");
    let all = lies > 0 && noticed.fetches > 0 && noticed.opens > 0;
    assert!(all || seeds.count() < 100, "{lies} lies, {noticed:?}");
}
