//! Checks of closing and of use by several threads.

use core_view::DType;

use super::weights::weight;
use super::{holds, same, works};
use crate::{Delta, DeltaKind, HashKey, WeightError, WeightHash, WeightStore};

pub(super) fn closing_ends_the_use(store: &dyn WeightStore) -> Result<(), String> {
    let weight = weight("w", DType::F32, &[4], 1)?;
    let hash = works("store", store.store(&weight, None))?;
    works("close", store.close())?;
    works("a second close", store.close())?;
    let key = HashKey::from(hash);
    let delta = Delta::new(DeltaKind::Sparse, DType::F32, &[4], hash, vec![1_u8]);
    let answers = [
        ("store", store.store(&weight, None).err()),
        ("load", store.load(&key).err()),
        ("exists", store.exists(&key).err()),
        ("delete", store.delete(&key).err()),
        ("list_weights", store.list_weights().err()),
        ("get_metadata", store.get_metadata(&key).err()),
        ("uses", store.uses(&key).err()),
        ("load_batch", store.load_batch(&[key]).err()),
        (
            "store_batch",
            store
                .store_batch(&[("w".into(), weight.clone())].into())
                .err(),
        ),
        ("get_storage_info", store.get_storage_info().err()),
        ("store_delta", store.store_delta(&delta, None).err()),
        ("load_delta", store.load_delta(&hash).err()),
        ("delta_exists", store.delta_exists(&hash).err()),
        ("delete_delta", store.delete_delta(&hash).err()),
        ("list_deltas", store.list_deltas().err()),
        (
            "get_delta_storage_info",
            store.get_delta_storage_info().err(),
        ),
    ];
    for (call, answer) in answers {
        match answer {
            Some(WeightError::Closed) => {}
            other => return Err(format!("{call} on a closed store gave {other:?}")),
        }
    }
    Ok(())
}

const THREADS: u64 = 4;
const ROUNDS: u64 = 25;

pub(super) fn threads_share_a_store(store: &dyn WeightStore) -> Result<(), String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || share(store, thread)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a thread panicked".into()))
        })
    })?;
    let expected = THREADS * ROUNDS + ROUNDS;
    let listed = works("list_weights", store.list_weights())?;
    same("the number of weights", listed.len() as u64, expected)
}

/// Stores one weight that all threads store, one of its own that stays, and one that goes.
fn share(store: &dyn WeightStore, thread: u64) -> Result<(), String> {
    for round in 0..ROUNDS {
        let shared = weight("shared", DType::U8, &[1000, 7], round)?;
        let own = weight("own", DType::U8, &[1 + thread, 50 + round], round)?;
        let brief = weight("brief", DType::U16, &[1 + thread, 50 + round], round)?;
        let mut hashes: Vec<WeightHash> = Vec::new();
        for weight in [&shared, &own, &brief] {
            hashes.push(works("store", store.store(weight, None))?);
        }
        for (hash, weight) in hashes.iter().zip([&shared, &own, &brief]) {
            let loaded = works("load", store.load(&hash.into()))?
                .ok_or_else(|| format!("{} is absent", weight.name()))?;
            holds("the bytes are the same", loaded.bytes() == weight.bytes())?;
        }
        let gone = works("delete", store.delete(&brief.compute_hash().into()))?;
        holds("delete is true", gone)?;
    }
    Ok(())
}
