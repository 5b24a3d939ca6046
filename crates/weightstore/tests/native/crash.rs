//! Power failures: what was acknowledged is whole, what was not is whole or absent.

use std::collections::BTreeMap;

use core_view::DType;
use tier_nvme::StorageConfig;
use tier_nvme::sim::{Random, SimVolume};
use weightstore::{
    Codec, HashKey, ImportOptions, NativeConfig, NativeStore, WeightError, WeightStore,
    WeightTensor,
};

use crate::fixture::{Tensor, add_with, bytes, get, noise, plain, safetensors};

const OPERATIONS: u64 = 200;

fn small() -> NativeConfig {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(1 << 20)
        .with_threads(1)
}

/// What can be asked of the store by name: a model's file or a single weight's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Model,
    Weight,
}

type Name = (Kind, String);

/// What should be in the store.
#[derive(Default)]
struct Expected {
    content: BTreeMap<Name, Vec<u8>>,
    /// A name whose change was not acknowledged: before or after, both are right.
    unsure: Option<(Name, Option<Vec<u8>>)>,
}

/// How often each thing happened.
#[derive(Debug, Default)]
struct Counts {
    crashes: u64,
    unsure_kept: u64,
    unsure_lost: u64,
    unreachable: u64,
}

fn tensor(random: &mut Random, index: u64) -> Tensor {
    let seed = random.next_u64() % 12;
    let len = match random.next_u64() % 40 {
        0..=3 => (1 << 20) + 5,
        4..=6 => 0,
        7..=20 => 5000 + seed as usize,
        _ => 100 + seed as usize,
    };
    let data = if seed.is_multiple_of(2) {
        noise(seed, len)
    } else {
        plain(seed, len)
    };
    bytes(&format!("t{index}"), data)
}

fn weight(name: &str, data: &[u8]) -> WeightTensor {
    WeightTensor::new(name, DType::U8, &[data.len() as u64], data.to_vec()).unwrap()
}

/// What is under a name.
fn find(store: &NativeStore, name: &Name) -> Result<Option<Vec<u8>>, WeightError> {
    match name {
        (Kind::Model, name) => match get(store, name) {
            Ok(file) => Ok(Some(file)),
            Err(WeightError::ModelNotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        },
        (Kind::Weight, hash) => {
            let key: HashKey = hash.parse()?;
            // A tensor of a model is a weight as well; only those with a use of their own count here.
            let uses = store.uses(&key)?;
            if uses.iter().all(|label| label.model_name.is_some()) {
                return Ok(None);
            }
            Ok(store.load(&key)?.map(|weight| weight.bytes().to_vec()))
        }
    }
}

fn step(
    store: &NativeStore,
    random: &mut Random,
    expected: &mut Expected,
) -> Result<(), WeightError> {
    let model = (Kind::Model, format!("model-{}", random.next_u64() % 6));
    let single = random.next_u64() % 6;
    // No model has tensors of this length, so that deleting one is never refused.
    let data = noise(single, 7000 + 200_000 * single as usize);
    let lone = weight("lone", &data);
    let lone_name = (Kind::Weight, lone.compute_hash().to_string());
    let mut change = |name: &Name, after: Option<Vec<u8>>| {
        expected.unsure = Some((name.clone(), after));
    };
    match random.next_u64() % 8 {
        0 | 1 if expected.content.contains_key(&model) => {
            change(&model, None);
            store.remove_model(&model.1)?;
        }
        2 => {
            change(&lone_name, Some(data));
            store.store(&lone, None)?;
        }
        3 => {
            change(&lone_name, None);
            store.delete(&lone.compute_hash().into())?;
        }
        _ => {
            let count = 1 + random.next_u64() % 5;
            let tensors: Vec<_> = (0..count).map(|index| tensor(random, index)).collect();
            let file = safetensors(&tensors);
            change(&model, Some(file.clone()));
            let codec = [Codec::None, Codec::Lz4, Codec::Auto][random.next_u64() as usize % 3];
            let codec = codec.check().map_or(Codec::None, |()| codec);
            let options = ImportOptions::default()
                .with_codec(codec)
                .with_replace(true);
            add_with(store, &model.1, &file, &options)?;
        }
    }
    if let Some((name, after)) = expected.unsure.take() {
        match after {
            Some(content) => expected.content.insert(name, content),
            None => expected.content.remove(&name),
        };
    }
    Ok(())
}

fn check(store: &NativeStore, expected: &mut Expected, counts: &mut Counts, seed: u64) {
    if let Some((name, after)) = expected.unsure.take() {
        let found = find(store, &name).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        let before = expected.content.get(&name).cloned();
        if before != after {
            counts.unsure_kept += u64::from(found == after);
            counts.unsure_lost += u64::from(found == before);
        }
        assert!(
            found == before || found == after,
            "seed {seed}: {name:?} is neither old nor new"
        );
        match found {
            Some(content) => expected.content.insert(name, content),
            None => expected.content.remove(&name),
        };
    }
    let models = expected.content.keys().filter(|name| name.0 == Kind::Model);
    let names: Vec<String> = models.map(|name| name.1.clone()).collect();
    assert_eq!(store.models().unwrap(), names, "seed {seed}");
    for (name, content) in &expected.content {
        let found = find(store, name).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert!(found.as_ref() == Some(content), "seed {seed}: {name:?}");
    }
    let report = store.verify(None).unwrap();
    assert!(report.is_whole(), "seed {seed}: {report:?}");
    counts.unreachable += report.unreachable;
}

fn run(seed: u64, counts: &mut Counts) {
    let volume = SimVolume::new(seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let mut expected = Expected::default();
    let mut operations = 0;
    while operations < OPERATIONS {
        volume.fail_power_after(random.next_u64() % 250);
        if let Ok(store) = NativeStore::on_volume(volume.handle(), small()) {
            while operations < OPERATIONS {
                operations += 1;
                if step(&store, &mut random, &mut expected).is_err() {
                    break;
                }
            }
        }
        volume.crash();
        counts.crashes += 1;
        let store = NativeStore::on_volume(volume.handle(), small()).unwrap();
        check(&store, &mut expected, counts, seed);
    }
}

#[test]
fn what_was_acknowledged_survives_power_failures() {
    let seeds = std::env::var("STEPWELL_MODEL_SEEDS");
    let seeds = seeds.ok().and_then(|text| text.parse().ok());
    let mut counts = Counts::default();
    for seed in 0..seeds.unwrap_or(4) {
        run(seed, &mut counts);
    }
    println!("{counts:?}");
    for count in [
        counts.crashes,
        counts.unsure_lost,
        counts.unsure_kept,
        counts.unreachable,
    ] {
        assert!(count > 0, "{counts:?}");
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let volume = SimVolume::new(1);
    volume.set_capacity(24 << 20);
    let store = NativeStore::on_volume(volume.handle(), small()).unwrap();
    let mut stored = BTreeMap::new();
    let full = (0..40_u64).find_map(|index| {
        let file = safetensors(&[bytes("w", noise(index + 100, 3 << 20))]);
        let name = format!("m{index}");
        match add_with(&store, &name, &file, &ImportOptions::default()) {
            Ok(_) => {
                stored.insert(name, file);
                None
            }
            Err(error) => Some(error),
        }
    });
    let full = full.unwrap();
    let cause = std::error::Error::source(&full).unwrap().to_string();
    assert!(cause.contains("no space"), "{full:?}");
    assert_eq!(
        store.models().unwrap(),
        stored.keys().cloned().collect::<Vec<_>>()
    );
    for (name, file) in &stored {
        assert_eq!(&get(&store, name).unwrap(), file);
    }
    assert!(store.verify(None).unwrap().is_whole());
}
