//! Without a sync for each change: what a power loss leaves is what there was at some moment since the flush.

use std::collections::BTreeMap;

use core_view::contract::{BlockKey, BlockStore, ErrorKind};
use tier_nvme::BlockSlab;
use tier_nvme::sim::{Random, Seeds, SimVolume};

use super::{COMMAND, Model, Value, check_contents, config, fetch_surely, is_value};

/// Which of the moments the slab shows, and nothing else.
fn contents(slab: &BlockSlab, history: &[Model], what: &str) -> usize {
    let listed = slab.list(None, usize::MAX).unwrap();
    let held: BTreeMap<u128, _> = listed
        .iter()
        .map(|entry| (entry.key.0, fetch_surely(slab, entry.key.0).unwrap()))
        .collect();
    let is_held = |model: &Model| {
        let same = |(key, value): (&u128, &Value)| {
            held.get(key).is_some_and(|found| is_value(found, *value))
        };
        model.len() == held.len() && model.iter().all(same)
    };
    let at = history.iter().rposition(is_held);
    at.unwrap_or_else(|| panic!("{what}: {:?} was never so since the flush", held.keys()))
}

fn live(seed: u64, lost: &mut u64) {
    let volume = SimVolume::new(seed);
    let config = config().with_durable(false);
    let mut random = Random::new(seed ^ 0xface);
    let mut slab = BlockSlab::on_volume(volume.handle(), config.clone()).unwrap();
    let mut history = vec![Model::new()];
    for step in 0..150 {
        let what = format!("seed {seed}, step {step}");
        let mut model = history.last().unwrap().clone();
        let key = u128::from(random.below(20));
        match random.below(20) {
            0 => {
                slab.flush().unwrap();
                history = vec![model];
            }
            1 => {
                volume.crash();
                drop(slab);
                slab = BlockSlab::on_volume(volume.handle(), config.clone()).unwrap();
                let at = contents(&slab, &history, &what);
                *lost += u64::from(at + 1 < history.len());
                history = vec![history[at].clone()];
            }
            2 => {
                volume.kill();
                drop(slab);
                slab = BlockSlab::on_volume(volume.handle(), config.clone()).unwrap();
                check_contents(&slab, &model, &what);
                history = vec![model];
            }
            3..=7 => {
                let removed = slab.remove(&[BlockKey(key)]).wait().unwrap();
                assert_eq!(removed, [model.remove(&key).is_some()], "{what}");
                history.push(model);
            }
            _ => {
                let value = Value::any(&mut random);
                let put = value.put(key, random.chance(700));
                match slab.put(vec![put]).wait().unwrap().remove(0) {
                    Ok(_) => {
                        model.insert(key, value);
                        history.push(model);
                    }
                    Err(failure) => assert_eq!(failure.kind(), ErrorKind::NoSpace),
                }
            }
        }
    }
    slab.close().unwrap();
    drop(slab);
    volume.crash();
    let slab = BlockSlab::on_volume(volume.handle(), config).unwrap();
    check_contents(&slab, history.last().unwrap(), "closed");
}

#[test]
fn a_power_loss_takes_the_newest_changes_and_a_kill_none() {
    let mut lost = 0;
    let seeds = Seeds::from_environment(60);
    seeds.for_each(COMMAND, |seed| {
        live(seed, &mut lost);
    });
    assert!(lost > 0 || seeds.count() < 20, "no change was ever lost");
}
