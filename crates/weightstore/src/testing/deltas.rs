//! Checks of deltas.

use core_view::DType;

use super::weights::{pattern, weight};
use super::{holds, same, works};
use crate::{Delta, DeltaKind, HashKey, WeightError, WeightHash, WeightStore};

fn delta(kind: DeltaKind, reference: HashKey, seed: u64, len: usize) -> Delta {
    Delta::new(kind, DType::F32, &[4, 5], reference, pattern(seed, len))
        .with_compression_ratio(0.25)
        .with_metadata(r#"{"scale": 0.5}"#)
}

pub(super) fn deltas_come_back(store: &dyn WeightStore) -> Result<(), String> {
    let base = works(
        "store",
        store.store(&weight("w", DType::F32, &[4, 5], 1)?, None),
    )?;
    let mut hashes = Vec::new();
    let mut payload_bytes = 0;
    for (seed, kind) in DeltaKind::all().enumerate() {
        let len = [0, 1, 5000, 3 << 20][seed % 4];
        let delta = delta(kind, base.into(), seed as u64, len);
        let hash = works("store_delta", store.store_delta(&delta, None))?;
        same("the hash", hash, delta.compute_hash())?;
        let again = works("store_delta", store.store_delta(&delta, Some(&hash)))?;
        same("the hash again", again, hash)?;
        let loaded = works("load_delta", store.load_delta(&hash))?.ok_or("a delta is absent")?;
        same("the loaded hash", loaded.compute_hash(), hash)?;
        same("the kind", loaded.kind(), kind)?;
        same("the reference", loaded.reference_hash(), base.into())?;
        same("the shape", loaded.original_shape(), &[4, 5])?;
        same("the ratio", loaded.compression_ratio(), 0.25)?;
        same("the metadata", loaded.metadata(), r#"{"scale": 0.5}"#)?;
        holds(
            "the payload is the same",
            loaded.payload() == delta.payload(),
        )?;
        payload_bytes += len as u64;
        hashes.push(hash);
    }
    hashes.sort_unstable();
    same(
        "the list",
        works("list_deltas", store.list_deltas())?,
        hashes.clone(),
    )?;
    let info = works("get_delta_storage_info", store.get_delta_storage_info())?;
    same("the total", info.total_deltas, hashes.len() as u64)?;
    same("the logical bytes", info.logical_bytes, payload_bytes)?;
    for hash in &hashes {
        holds(
            "it exists",
            works("delta_exists", store.delta_exists(hash))?,
        )?;
        holds(
            "delete is true",
            works("delete_delta", store.delete_delta(hash))?,
        )?;
        holds(
            "it is gone",
            !works("delta_exists", store.delta_exists(hash))?,
        )?;
        holds(
            "no second delete",
            !works("delete_delta", store.delete_delta(hash))?,
        )?;
        holds(
            "it loads nothing",
            works("load_delta", store.load_delta(hash))?.is_none(),
        )?;
    }
    holds(
        "deltas are not listed as weights",
        works("list_weights", store.list_weights())? == [base],
    )
}

pub(super) fn supplied_hashes_are_checked(store: &dyn WeightStore) -> Result<(), String> {
    let reference = WeightHash::from_bytes([3; 32]);
    let delta = delta(DeltaKind::Sparse, reference.into(), 1, 10);
    match store.store_delta(&delta, Some(&reference)) {
        Err(WeightError::HashMismatch { .. }) => {}
        other => return Err(format!("a wrong hash gave {other:?}")),
    }
    holds(
        "nothing was stored",
        works("list_deltas", store.list_deltas())?.is_empty(),
    )
}

pub(super) fn references_stay(store: &dyn WeightStore) -> Result<(), String> {
    let base = weight("w", DType::F32, &[4, 5], 1)?;
    let key = HashKey::from(works("store", store.store(&base, None))?);
    for reference in [key, base.compute_alias().into()] {
        let delta = delta(DeltaKind::Sparse, reference, 1, 10);
        let hash = works("store_delta", store.store_delta(&delta, None))?;
        match store.delete(&key) {
            Err(WeightError::InUse { .. }) => {}
            other => return Err(format!("deleting the reference of a delta gave {other:?}")),
        }
        holds("the reference stays", works("exists", store.exists(&key))?)?;
        works("delete_delta", store.delete_delta(&hash))?;
    }
    holds("it can go now", works("delete", store.delete(&key))?)
}
