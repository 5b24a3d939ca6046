//! What is done to a store while it lives.

use std::time::Duration;

use tier_nvme::sim::{FaultRates, Random, SimVolume};
use weightstore::{
    Codec, GcOptions, ImportOptions, NativeStore, SourceFile, WeightError, WeightStore,
};

use crate::content::{LONG_LEN, Tensor, delta, model};
use crate::counts::Counts;
use crate::expected::{Expected, Name, find};
use crate::life::SEGMENT_BYTES;

const MODELS: u64 = 7;

pub(crate) struct Life<'a> {
    pub(crate) volume: &'a SimVolume,
    pub(crate) rates: FaultRates,
    pub(crate) store: &'a NativeStore,
    pub(crate) random: &'a mut Random,
    pub(crate) expected: &'a mut Expected,
    pub(crate) counts: &'a mut Counts,
}

/// Whether the store goes on after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Next,
    Closed,
}

impl Life<'_> {
    pub(crate) fn step(&mut self) -> Result<Step, WeightError> {
        let model = format!("model-{}", self.random.below(MODELS));
        match self.random.below(64) {
            0..=11 => self.remove(model),
            12..=18 => self.store_weight(),
            19..=24 => self.delete_weight(),
            25..=26 => self.store_delta(),
            27..=28 => self.delete_delta(),
            29..=34 => self.collect(),
            35..=38 => self.collect_in_part(),
            39..=41 => self.compact(),
            42..=43 => self.verify(),
            44..=46 => self.read(),
            47 => return self.close(),
            _ => self.import(model),
        }?;
        Ok(Step::Next)
    }

    fn import(&mut self, name: String) -> Result<(), WeightError> {
        let file = model(self.random);
        let models = self.expected.models();
        let base = models.get(self.random.below(4) as usize);
        let base = base
            .filter(|base| **base != name)
            .map(|base| base.to_string());
        let codec = match self.random.below(8) {
            // As it is, a whole chunk is longer than a segment.
            0 if file.len() < LONG_LEN => Codec::None,
            1 if Codec::Lz4.check().is_ok() => Codec::Lz4,
            _ => Codec::Auto,
        };
        let mut options = ImportOptions::default()
            .with_codec(codec)
            .with_replace(true);
        if let Some(base) = base.as_deref().filter(|_| self.random.below(3) == 0) {
            options = options.with_base(base);
        }
        let replaces = models.contains(&name.as_str());
        self.expected
            .begin(Name::Model(name.clone()), Some(file.clone()));
        let source = SourceFile {
            name: "model.safetensors",
            source: &file,
        };
        let added = self.store.add_model(&name, source, &options);
        self.counts.imports_cut_off += u64::from(added.is_err());
        let report = added?;
        self.expected.done();
        self.counts.imports += 1;
        self.counts.imports_in_batches += u64::from(report.stored_bytes > 2 * SEGMENT_BYTES);
        self.counts.replacements += u64::from(replaces && !report.was_there);
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

    fn store_delta(&mut self) -> Result<(), WeightError> {
        let delta = delta(self.random);
        let name = Name::Delta(delta.compute_hash());
        self.expected.begin(name, Some(delta.payload().to_vec()));
        self.store.store_delta(&delta, None)?;
        self.expected.done();
        self.counts.opaque_deltas += 1;
        Ok(())
    }

    fn delete_delta(&mut self) -> Result<(), WeightError> {
        let deltas = self.expected.deltas();
        let at = self.random.below(deltas.len().max(1) as u64) as usize;
        let Some(id) = deltas.get(at).copied() else {
            return Ok(());
        };
        self.expected.begin(Name::Delta(id), None);
        assert!(self.store.delete_delta(&id)?);
        self.expected.done();
        Ok(())
    }

    /// What a read gives is what was stored; while the disk fails it may give nothing.
    fn read(&mut self) -> Result<(), WeightError> {
        let Some((name, content)) = self.expected.any(self.random) else {
            return Ok(());
        };
        match find(self.store, name) {
            Ok(found) => {
                assert!(
                    found.as_ref() == Some(content),
                    "{name:?} is not what it was"
                );
                self.counts.reads += 1;
                Ok(())
            }
            Err(error) => {
                assert!(!self.is_sound(), "{name:?}: {error:?}");
                self.counts.reads_failed += 1;
                Err(error)
            }
        }
    }

    /// Whether whatever is there can be read.
    fn is_sound(&self) -> bool {
        self.volume.has_power() && self.rates.read_errors == 0
    }

    fn verify(&mut self) -> Result<(), WeightError> {
        let report = self.store.verify(None)?;
        assert!(report.is_whole() || !self.is_sound(), "{report:?}");
        self.counts.verifications += 1;
        Ok(())
    }

    /// Nothing is lost by a power failure that comes after, and little is left to recover.
    fn close(&mut self) -> Result<Step, WeightError> {
        self.store.close()?;
        self.counts.closings += 1;
        Ok(Step::Closed)
    }
}
