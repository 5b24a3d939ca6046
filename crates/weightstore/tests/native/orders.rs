//! Whatever goes first, what is left is whole; chains end where they are to.

use core_view::DType;
use tier_nvme::sim::SimVolume;
use weightstore::{
    Delta, DeltaKind, GcOptions, ImportOptions, NativeConfig, NativeStore, WeightError, WeightHash,
    WeightStore, WeightTensor,
};

use crate::fixture::{add, add_with, bf16, config, get, noise, safetensors, tuned, weights};

/// Each member a little further from the first than the one before.
fn member(step: u64) -> WeightTensor {
    let mut now = weights(1, 32 << 10);
    for step in 0..step {
        now = tuned(&now, 2e-3, step);
    }
    let bytes = bf16("", 256, &now).bytes;
    WeightTensor::new(format!("w{step}"), DType::BF16, &[128, 256], bytes).unwrap()
}

/// What can be deleted: single weights, a delta from one of them, a model of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Weight(usize),
    Delta,
    Model,
}

const THINGS: [Thing; 5] = [
    Thing::Weight(0),
    Thing::Weight(1),
    Thing::Weight(2),
    Thing::Delta,
    Thing::Model,
];

fn orders(things: &[Thing]) -> Vec<Vec<Thing>> {
    if things.is_empty() {
        return vec![Vec::new()];
    }
    let all = things.iter().flat_map(|first| {
        let rest: Vec<Thing> = things
            .iter()
            .copied()
            .filter(|thing| thing != first)
            .collect();
        let rests = orders(&rest).into_iter();
        rests.map(move |rest| [&[*first], &rest[..]].concat())
    });
    all.collect()
}

/// Three weights, each stored against the one before, a delta from the second, and a model of the third.
struct Fixture {
    volume: SimVolume,
    weights: Vec<(WeightHash, WeightTensor)>,
    delta: (WeightHash, Delta),
    model: Vec<u8>,
}

impl Fixture {
    fn new() -> Self {
        let volume = SimVolume::new(1);
        let store = NativeStore::on_volume(volume.handle(), config()).unwrap();
        let weights: Vec<(WeightHash, WeightTensor)> = (0..3)
            .map(|step| {
                let weight = member(step);
                (store.store(&weight, None).unwrap(), weight)
            })
            .collect();
        assert_eq!(store.stats().unwrap().depths.iter().sum::<u64>(), 3);
        assert!(store.stats().unwrap().depths.len() > 1);
        let delta = Delta::new(
            DeltaKind::Sparse,
            DType::BF16,
            &[128, 256],
            weights[1].0,
            noise(1, 5000),
        );
        let delta = (store.store_delta(&delta, None).unwrap(), delta);
        let third = bf16("third", 256, &{
            let first = tuned(&self::weights(1, 32 << 10), 2e-3, 0);
            tuned(&first, 2e-3, 1)
        });
        let model = safetensors(&[third]);
        let added = add(&store, "m", &model).unwrap();
        assert_eq!((added.new_tensors, added.tensors), (0, 1));
        store.close().unwrap();
        Self {
            volume,
            weights,
            delta,
            model,
        }
    }

    fn check(&self, store: &NativeStore, left: &[Thing]) {
        for thing in left {
            match *thing {
                Thing::Weight(index) => {
                    let (hash, weight) = &self.weights[index];
                    let loaded = store.load(&hash.into()).unwrap().unwrap();
                    assert!(loaded.bytes() == weight.bytes(), "{thing:?} of {left:?}");
                }
                Thing::Delta => {
                    let loaded = store.load_delta(&self.delta.0).unwrap().unwrap();
                    assert_eq!(loaded.payload(), self.delta.1.payload());
                    // What it is a delta from stays with it, whoever else gave it up.
                    let reference = self.weights[1].0;
                    assert!(store.load(&reference.into()).unwrap().is_some());
                }
                Thing::Model => assert!(get(store, "m").unwrap() == self.model),
            }
        }
    }

    /// Whether it went: what others need is not deleted.
    fn delete(&self, store: &NativeStore, thing: Thing) -> bool {
        match thing {
            Thing::Weight(index) => match store.delete(&self.weights[index].0.into()) {
                Ok(was_there) => {
                    assert!(was_there);
                    true
                }
                Err(WeightError::InUse { .. }) => false,
                Err(error) => panic!("{error:?}"),
            },
            Thing::Delta => store.delete_delta(&self.delta.0).unwrap(),
            Thing::Model => store.remove_model("m").is_ok(),
        }
    }
}

#[test]
fn weights_deltas_and_models_go_in_every_order() {
    let fixture = Fixture::new();
    for (index, order) in orders(&THINGS).into_iter().enumerate() {
        let rebase = index % 2 == 0;
        let volume = fixture.volume.fork(1);
        let config = config().with_rebase(index % 4 < 2);
        let store = NativeStore::on_volume(volume.handle(), config).unwrap();
        let mut left = order.clone();
        // What is refused is asked for again once the others went.
        for _ in 0..THINGS.len() {
            let before = left.clone();
            for thing in before {
                if fixture.delete(&store, thing) {
                    left.retain(|other| *other != thing);
                }
                let options = GcOptions::default().with_rebase(rebase);
                let report = store.gc(options).unwrap();
                assert!(report.unreadable.is_empty(), "{order:?}: {report:?}");
                fixture.check(&store, &left);
            }
        }
        assert!(left.is_empty(), "{order:?}: {left:?}");
        assert!(store.list_weights().unwrap().is_empty(), "{order:?}");
        let report = store.verify(None).unwrap();
        assert!(report.is_whole() && report.unreachable == 0, "{report:?}");
    }
}

#[test]
fn chains_reach_the_bound_and_end_there() {
    let volume = SimVolume::new(1);
    let bound = NativeConfig::CHAIN_DEPTH_MAX;
    let config = config().with_chain_depth_max(bound);
    let store = NativeStore::on_volume(volume.handle(), config).unwrap();
    let mut now = weights(1, 16 << 10);
    let mut files = Vec::new();
    for step in 0..u64::from(bound) + 4 {
        let file = safetensors(&[bf16("w", 256, &now)]);
        let before = step.saturating_sub(1).to_string();
        let mut options = ImportOptions::default().with_find_bases(false);
        if step > 0 {
            options = options.with_base(&before);
        }
        add_with(&store, &step.to_string(), &file, &options).unwrap();
        files.push(file);
        now = tuned(&now, 1e-3, step);
    }
    let depths = store.stats().unwrap().depths;
    assert_eq!(depths.len(), usize::from(bound) + 1, "{depths:?}");
    for (step, file) in files.iter().enumerate() {
        assert!(get(&store, &step.to_string()).unwrap() == *file, "{step}");
    }
    // From the bottom up: each base is needed by the next.
    for step in 0..files.len() {
        store.remove_model(&step.to_string()).unwrap();
        store.gc(GcOptions::default().with_rebase(true)).unwrap();
        for (left, file) in files.iter().enumerate().skip(step + 1) {
            assert!(get(&store, &left.to_string()).unwrap() == *file, "{left}");
        }
    }
    assert!(store.list_weights().unwrap().is_empty());
}
