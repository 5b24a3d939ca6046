//! One life of a store: operations until the power fails, recovery, and again.

use std::time::Duration;

use tier_nvme::StorageConfig;
use tier_nvme::sim::{FaultCounts, FaultRates, Random, SimVolume};
use weightstore::{
    Codec, GcOptions, ImportOptions, NativeConfig, NativeStore, SourceFile, VerifyOptions,
    WeightError, WeightStore,
};

use crate::OPERATIONS;
use crate::content::{Tensor, model};
use crate::counts::Counts;
use crate::expected::{Expected, Name};

const MODELS: u64 = 7;

fn config(random: &mut Random) -> NativeConfig {
    let storage = StorageConfig::default()
        .with_segment_bytes(4 << 20)
        .with_background(false);
    NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(1 << 20)
        .with_threads(1)
        .with_chain_depth_max(random.below(4) as u8)
        .with_rebase(random.below(3) == 0)
}

struct Life<'a> {
    volume: &'a SimVolume,
    store: &'a NativeStore,
    random: &'a mut Random,
    expected: &'a mut Expected,
    counts: &'a mut Counts,
}

pub(crate) fn run(seed: u64) -> (Counts, FaultCounts) {
    let volume = SimVolume::new(seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let (mut expected, mut counts) = (Expected::default(), Counts::default());
    while counts.operations < OPERATIONS {
        volume.fail_power_after(random.below(150));
        let failing = u32::from(random.below(3) == 0);
        volume.set_faults(FaultRates {
            write_errors: 20 * failing,
            sync_errors: 10 * failing,
            ..FaultRates::default()
        });
        if let Ok(store) = NativeStore::on_volume(volume.handle(), config(&mut random)) {
            while counts.operations < OPERATIONS {
                counts.operations += 1;
                let mut life = Life {
                    volume: &volume,
                    store: &store,
                    random: &mut random,
                    expected: &mut expected,
                    counts: &mut counts,
                };
                if life.step().is_err() {
                    break;
                }
            }
        }
        volume.crash();
        volume.set_faults(FaultRates::default());
        let store = NativeStore::on_volume(volume.handle(), config(&mut random)).unwrap();
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
    // What single weights are stored against may have to go after them.
    let mut left = store.list_weights().unwrap();
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

impl Life<'_> {
    fn step(&mut self) -> Result<(), WeightError> {
        let model = format!("model-{}", self.random.below(MODELS));
        match self.random.below(16) {
            0..=2 => self.remove(model),
            3 | 4 => self.store_weight(),
            5 | 6 => self.delete_weight(),
            7 | 8 => self.collect(),
            9 => self.collect_in_part(),
            10 => self.compact(),
            _ => self.import(model),
        }
    }

    fn import(&mut self, name: String) -> Result<(), WeightError> {
        let file = model(self.random);
        let models = self.expected.models();
        let base = models.get(self.random.below(4) as usize);
        let base = base
            .filter(|base| **base != name)
            .map(|base| base.to_string());
        let codec = match self.random.below(8) {
            0 => Codec::None,
            1 if Codec::Lz4.check().is_ok() => Codec::Lz4,
            _ => Codec::Auto,
        };
        let mut options = ImportOptions::default()
            .with_codec(codec)
            .with_replace(true);
        if let Some(base) = base.as_deref().filter(|_| self.random.below(3) == 0) {
            options = options.with_base(base);
        }
        self.expected
            .begin(Name::Model(name.clone()), Some(file.clone()));
        let source = SourceFile {
            name: "model.safetensors",
            source: &file,
        };
        let report = self.store.add_model(&name, source, &options)?;
        self.expected.done();
        self.counts.imports += 1;
        self.counts.deltas += report.delta_tensors;
        Ok(())
    }

    fn remove(&mut self, name: String) -> Result<(), WeightError> {
        self.expected.begin(Name::Model(name.clone()), None);
        match self.store.remove_model(&name) {
            Ok(report) => {
                self.counts.removals += 1;
                self.counts.bases_kept += report.kept_tensors;
            }
            Err(WeightError::ModelNotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.expected.done();
        Ok(())
    }

    fn store_weight(&mut self) -> Result<(), WeightError> {
        let weight = Tensor::of_family(self.random).weight();
        let name = Name::Weight(weight.compute_hash());
        self.expected.begin(name, Some(weight.bytes().to_vec()));
        self.store.store(&weight, None)?;
        self.expected.done();
        Ok(())
    }

    fn delete_weight(&mut self) -> Result<(), WeightError> {
        let hash = Tensor::of_family(self.random).weight().compute_hash();
        self.expected.begin(Name::Weight(hash), None);
        match self.store.delete(&hash.into()) {
            Ok(_) => self.expected.done(),
            Err(WeightError::InUse { .. }) => {
                self.counts.refusals += 1;
                self.expected.refused();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<(), WeightError> {
        if self.random.below(3) == 0 {
            self.volume.fail_power_after(self.random.below(4));
        }
        let options = GcOptions::default().with_rebase(self.random.below(3) > 0);
        let collected = self.store.gc(options);
        self.counts.collections_cut_off += u64::from(collected.is_err());
        let report = collected?;
        assert!(report.unreadable.is_empty(), "{report:?}");
        self.counts.collections += 1;
        self.counts.collected_tensors += report.removed_tensors;
        self.counts.collected_chunks += report.removed_chunks;
        self.counts.rebased += report.rebased_tensors;
        Ok(())
    }

    /// A collection that is given up, with other operations between its steps.
    fn collect_in_part(&mut self) -> Result<(), WeightError> {
        let store = self.store;
        let mut gc = store.begin_gc(GcOptions::default().with_rebase(true));
        for _ in 0..self.random.below(8) {
            let stepped = gc.step();
            self.counts.collections_cut_off += u64::from(stepped.is_err());
            if stepped? {
                break;
            }
            let model = format!("model-{}", self.random.below(MODELS));
            match self.random.below(3) {
                0 => self.remove(model)?,
                1 => self.import(model)?,
                _ => self.store_weight()?,
            }
        }
        self.counts.rebased += gc.report().rebased_tensors;
        Ok(())
    }

    fn compact(&mut self) -> Result<(), WeightError> {
        let blobs = self.store.blobs();
        let stepped = (0..10)
            .try_for_each(|second| blobs.step_background(Duration::from_secs(second)).map(drop));
        stepped.map_err(|error| WeightError::storage("compact", error))
    }
}
