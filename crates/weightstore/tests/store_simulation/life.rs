//! One life of a store: operations until the power fails, recovery, and again.

use tier_nvme::StorageConfig;
use tier_nvme::sim::{FaultCounts, FaultRates, Random, SimVolume};
use weightstore::{
    GcOptions, NativeConfig, NativeStore, VerifyOptions, WeightError, WeightHash, WeightStore,
};

use crate::counts::Counts;
use crate::expected::Expected;
use crate::operations::{Life, Step};
use crate::simulation::OPERATIONS;

/// So small that a model takes several batches, and compaction has something to do: no more than three quarters of a
/// segment are committed at once.
pub(crate) const SEGMENT_BYTES: u64 = 128 << 10;

fn config(random: &mut Random) -> NativeConfig {
    let storage = StorageConfig::default()
        .with_segment_bytes(SEGMENT_BYTES)
        .with_background(false);
    // One thread takes the steps of several, in an order that the seed chooses; at times as it does by itself.
    let config = match random.below(4) {
        0 => NativeConfig::default(),
        _ => NativeConfig::default().with_interleaving_seed(random.next_u64()),
    };
    config
        .with_storage(storage)
        .with_batch_bytes(NativeConfig::BATCH_BYTES_MIN)
        .with_threads(1)
        .with_chain_depth_max(random.below(4) as u8)
        .with_rebase(random.below(3) == 0)
}

/// What a life has to do with: a good disk, one that fails at times, one that is nearly full.
fn prepare(volume: &SimVolume, random: &mut Random) -> FaultRates {
    volume.fail_power_after(random.below(500));
    let failing = u32::from(random.below(3) == 0);
    let halting = u32::from(random.below(4) == 0);
    let unreadable = u32::from(random.below(8) == 0);
    if random.below(8) == 0 {
        let used: u64 = volume.files().iter().map(|(_, len)| len).sum();
        volume.set_capacity(used + random.below(5) * SEGMENT_BYTES);
    }
    let rates = FaultRates {
        read_errors: 3 * unreadable,
        write_errors: 20 * failing,
        sync_errors: 10 * failing,
        short_transfers: 30 * halting,
        interruptions: 30 * halting,
        ..FaultRates::default()
    };
    volume.set_faults(rates);
    rates
}

pub(crate) fn run(seed: u64) -> (Counts, FaultCounts) {
    let volume = SimVolume::new(seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let (mut expected, mut counts) = (Expected::default(), Counts::default());
    while counts.operations < OPERATIONS {
        let rates = prepare(&volume, &mut random);
        match NativeStore::on_volume(volume.handle(), config(&mut random)) {
            Ok(store) => {
                counts.add_recovery(store.blobs().recovery_report());
                let mut life = Life {
                    volume: &volume,
                    rates,
                    store: &store,
                    random: &mut random,
                    expected: &mut expected,
                    counts: &mut counts,
                };
                while life.counts.operations < OPERATIONS {
                    life.counts.operations += 1;
                    if !matches!(life.step(), Ok(Step::Next)) {
                        break;
                    }
                }
                let stats = store.blobs().stats();
                counts.compactions += stats.compactions_finished;
                counts.values_moved += stats.values_moved;
            }
            Err(_) => counts.refused_opens += 1,
        }
        volume.crash();
        volume.set_faults(FaultRates::default());
        volume.set_capacity(u64::MAX);
        let store = NativeStore::on_volume(volume.handle(), config(&mut random)).unwrap();
        counts.add_recovery(store.blobs().recovery_report());
        counts.reopens += 1;
        expected.settle(&store, &mut counts);
        expected.check(&store);
        counts.unreachable += verify(&store, &mut random, &mut counts);
        if random.below(4) == 0 {
            let report = store.gc(GcOptions::default()).unwrap();
            counts.collections += 1;
            counts.collected_tensors += report.removed_tensors;
            counts.collected_chunks += report.removed_chunks;
            expected.check(&store);
            assert_eq!(verify(&store, &mut random, &mut counts), 0, "{report:?}");
        }
    }
    end(&volume, &mut random, &expected);
    (counts, volume.counts())
}

/// Everything goes, and nothing stays.
fn end(volume: &SimVolume, random: &mut Random, expected: &Expected) {
    let store = NativeStore::on_volume(volume.handle(), config(random)).unwrap();
    for model in expected.models() {
        store.remove_model(model).unwrap();
    }
    for delta in expected.deltas() {
        assert!(store.delete_delta(&delta).unwrap());
    }
    // What single weights are stored against may have to go after them.
    let mut left: Vec<WeightHash> = store.list_weights().unwrap();
    for _ in 0..=left.len() {
        left.retain(|hash| match store.delete(&hash.into()) {
            Ok(_) => false,
            Err(WeightError::InUse { .. }) => true,
            Err(error) => panic!("{error:?}"),
        });
    }
    store.gc(GcOptions::default()).unwrap();
    let keys = store.blobs().keys_with_prefix(b"");
    assert!(keys.iter().all(|key| key.starts_with(b"s/")), "{keys:?}");
}

/// Verifies, sometimes in parts; returns how many chunks nothing reaches.
fn verify(store: &NativeStore, random: &mut Random, counts: &mut Counts) -> u64 {
    let in_parts = random.below(4) == 0;
    let mut options = VerifyOptions::default().with_bytes_max(in_parts.then_some(200_000));
    loop {
        let report = store.verify_with(&options).unwrap();
        assert!(report.is_whole(), "{report:?}");
        match report.stopped_at {
            Some(tensor) => options = options.with_start_after(tensor),
            None => {
                counts.resumed += u64::from(in_parts);
                return report.unreachable;
            }
        }
    }
}
