//! Checks of storing and finding tensors.

use std::collections::BTreeMap;

use core_view::DType;

use super::{holds, same, works};
use crate::identity::CHUNK_LEN_BYTES;
use crate::{CoralAlias, HashKey, WeightError, WeightHash, WeightStore, WeightTensor};

/// Bytes that differ by seed and do not repeat with the chunk length.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(super) fn weight(
    name: &str,
    dtype: DType,
    shape: &[u64],
    seed: u64,
) -> Result<WeightTensor, String> {
    let len = crate::tensor::len_bytes(dtype, shape)
        .ok_or_else(|| format!("{dtype} {shape:?} is no shape"))?;
    let bytes = pattern(seed, len as usize);
    works(
        "making a tensor",
        WeightTensor::new(name, dtype, shape, bytes),
    )
}

fn comes_back(store: &dyn WeightStore, weight: &WeightTensor) -> Result<(), String> {
    let hash = works("store", store.store(weight, None))?;
    same("the hash of store", hash, weight.compute_hash())?;
    holds(
        "a stored weight exists",
        works("exists", store.exists(&hash.into()))?,
    )?;
    let loaded = works("load", store.load(&hash.into()))?
        .ok_or_else(|| format!("{} is absent after store", weight.name()))?;
    same("the type", loaded.dtype(), weight.dtype())?;
    same("the shape", loaded.shape(), weight.shape())?;
    holds("the bytes are the same", loaded.bytes() == weight.bytes())
}

pub(super) fn every_type_comes_back(store: &dyn WeightStore) -> Result<(), String> {
    for (seed, dtype) in DType::all().enumerate() {
        comes_back(store, &weight("w", dtype, &[3, 8], seed as u64)?)?;
    }
    same(
        "the number of weights",
        works("list_weights", store.list_weights())?.len(),
        DType::all().len(),
    )
}

pub(super) fn edge_shapes_come_back(store: &dyn WeightStore) -> Result<(), String> {
    for shape in [
        &[][..],
        &[0],
        &[0, 7],
        &[7, 0],
        &[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2],
    ] {
        comes_back(store, &weight("w", DType::F32, shape, 3)?)?;
    }
    same(
        "the number of weights",
        works("list_weights", store.list_weights())?.len(),
        5,
    )
}

pub(super) fn large_tensors_come_back(store: &dyn WeightStore) -> Result<(), String> {
    let chunk = CHUNK_LEN_BYTES as u64;
    for len in [chunk - 1, chunk, chunk + 1, 3 * chunk + 17] {
        comes_back(store, &weight("w", DType::U8, &[len], len)?)?;
    }
    let zeros = works(
        "making a tensor",
        WeightTensor::new(
            "z",
            DType::U8,
            &[2 * chunk],
            vec![0_u8; 2 * CHUNK_LEN_BYTES],
        ),
    )?;
    comes_back(store, &zeros)
}

pub(super) fn absent_is_no_error(store: &dyn WeightStore) -> Result<(), String> {
    for key in [
        HashKey::Sha256(WeightHash::from_bytes([1; 32])),
        HashKey::Coral(CoralAlias::from_u64(1)),
    ] {
        holds(
            "load gives none",
            works("load", store.load(&key))?.is_none(),
        )?;
        holds("exists is false", !works("exists", store.exists(&key))?)?;
        holds("delete is false", !works("delete", store.delete(&key))?)?;
        let metadata = works("get_metadata", store.get_metadata(&key))?;
        holds("get_metadata gives none", metadata.is_none())?;
        holds(
            "there are no uses",
            works("uses", store.uses(&key))?.is_empty(),
        )?;
    }
    holds(
        "the list is empty",
        works("list_weights", store.list_weights())?.is_empty(),
    )
}

pub(super) fn supplied_hashes_are_checked(store: &dyn WeightStore) -> Result<(), String> {
    let weight = weight("w", DType::F32, &[4], 1)?;
    let wrong_alias = CoralAlias::from_u64(weight.compute_alias().as_u64() ^ 1);
    for wrong in [WeightHash::from_bytes([1; 32]).into(), wrong_alias.into()] {
        match store.store(&weight, Some(&wrong)) {
            Err(WeightError::HashMismatch { .. }) => {}
            other => return Err(format!("a wrong hash gave {other:?}")),
        }
    }
    holds(
        "nothing was stored under a wrong hash",
        works("list_weights", store.list_weights())?.is_empty(),
    )?;
    let hash = weight.compute_hash();
    for right in [hash.into(), weight.compute_alias().into()] {
        same(
            "the hash",
            works("store", store.store(&weight, Some(&right)))?,
            hash,
        )?;
    }
    Ok(())
}

pub(super) fn aliases_find_weights(store: &dyn WeightStore) -> Result<(), String> {
    let weight = weight("w", DType::BF16, &[10, 5], 1)?;
    let hash = works("store", store.store(&weight, None))?;
    let alias = HashKey::from(weight.compute_alias());
    holds("the alias exists", works("exists", store.exists(&alias))?)?;
    let loaded = works("load", store.load(&alias))?.ok_or("the alias loads nothing")?;
    holds("the bytes are the same", loaded.bytes() == weight.bytes())?;
    let metadata =
        works("get_metadata", store.get_metadata(&alias))?.ok_or("the alias has no metadata")?;
    same("the hash", metadata.hash, hash)?;
    holds(
        "delete takes the alias",
        works("delete", store.delete(&alias))?,
    )?;
    holds("it is gone", !works("exists", store.exists(&hash.into()))?)
}

pub(super) fn content_is_stored_once(store: &dyn WeightStore) -> Result<(), String> {
    let first = weight("first", DType::F32, &[64], 1)?;
    let second = weight("second", DType::F32, &[64], 1)?.with_model_name("m");
    let hash = works("store", store.store(&first, None))?;
    for again in [&second, &first, &second] {
        same("the hash", works("store", store.store(again, None))?, hash)?;
    }
    same(
        "the list",
        works("list_weights", store.list_weights())?,
        vec![hash],
    )?;
    let uses = works("uses", store.uses(&hash.into()))?;
    let names: Vec<&str> = uses.iter().map(|metadata| metadata.name.as_str()).collect();
    same("the first use", names.first(), Some(&"first"))?;
    holds(
        "uses names each use at most once",
        names.len() == 1 || names == ["first", "second"],
    )
}

pub(super) fn metadata_is_kept(store: &dyn WeightStore) -> Result<(), String> {
    let full = weight("encoder.0.weight", DType::F16, &[2, 3], 1)?
        .with_layer_type("Linear")
        .with_model_name("Größe/模型")
        .with_compression_info(r#"{"bits": 4}"#);
    let bare = weight("", DType::F16, &[3, 2], 2)?;
    for weight in [&full, &bare] {
        let hash = works("store", store.store(weight, None))?;
        let metadata = works("get_metadata", store.get_metadata(&hash.into()))?;
        same("the metadata", metadata, Some(weight.metadata()))?;
        let loaded = works("load", store.load(&hash.into()))?.ok_or("it is absent")?;
        same("the loaded metadata", loaded.metadata(), weight.metadata())?;
    }
    Ok(())
}

pub(super) fn lists_are_sorted(store: &dyn WeightStore) -> Result<(), String> {
    let mut expected = Vec::new();
    for seed in 0..20 {
        let weight = weight("w", DType::U8, &[9], seed)?;
        expected.push(works("store", store.store(&weight, None))?);
    }
    expected.sort_unstable();
    same(
        "the list",
        works("list_weights", store.list_weights())?,
        expected,
    )
}

pub(super) fn deleted_weights_are_gone(store: &dyn WeightStore) -> Result<(), String> {
    let kept = weight("kept", DType::U8, &[100_000], 1)?;
    let gone = weight("gone", DType::U8, &[3 << 20], 2)?;
    let kept_key = HashKey::from(works("store", store.store(&kept, None))?);
    let key = HashKey::from(works("store", store.store(&gone, None))?);
    holds("delete is true", works("delete", store.delete(&key))?)?;
    holds(
        "a second delete is false",
        !works("delete", store.delete(&key))?,
    )?;
    holds("it is absent", works("load", store.load(&key))?.is_none())?;
    holds(
        "the other stays",
        works("load", store.load(&kept_key))?.is_some(),
    )?;
    comes_back(store, &gone)
}

pub(super) fn batches_store_and_load(store: &dyn WeightStore) -> Result<(), String> {
    let mut weights = BTreeMap::new();
    for seed in 0..5_u64 {
        let shape = [1 + seed * 300_000];
        weights.insert(format!("w{seed}"), weight("w", DType::U8, &shape, seed)?);
    }
    weights.insert("twin".into(), weight("twin", DType::U8, &[1], 0)?);
    let hashes = works("store_batch", store.store_batch(&weights))?;
    same(
        "the keys of store_batch",
        hashes.keys().collect::<Vec<_>>(),
        weights.keys().collect::<Vec<_>>(),
    )?;
    let mut keys: Vec<HashKey> = hashes.values().map(HashKey::from).collect();
    keys.push(WeightHash::from_bytes([1; 32]).into());
    let loaded = works("load_batch", store.load_batch(&keys))?;
    same("the number loaded", loaded.len(), 5)?;
    for (key, weight) in &weights {
        let hash = hashes.get(key).ok_or("a key is missing")?;
        let found = loaded.get(&hash.into()).ok_or("a weight is missing")?;
        holds("the bytes are the same", found.bytes() == weight.bytes())?;
    }
    let nothing = works("store_batch", store.store_batch(&BTreeMap::new()))?;
    holds("an empty batch stores nothing", nothing.is_empty())
}

pub(super) fn storage_info_adds_up(store: &dyn WeightStore) -> Result<(), String> {
    let empty = works("get_storage_info", store.get_storage_info())?;
    same("the empty total", empty.total_weights, 0)?;
    same("the empty ratio", empty.compression_ratio, 1.0)?;
    for name in ["a", "b"] {
        works(
            "store",
            store.store(&weight(name, DType::F32, &[1000], 1)?, None),
        )?;
    }
    works(
        "store",
        store.store(&weight("c", DType::F32, &[500], 2)?, None),
    )?;
    let info = works("get_storage_info", store.get_storage_info())?;
    same("the total", info.total_weights, 2)?;
    same("the logical bytes", info.logical_bytes, 6000)?;
    let ratio = info.stored_bytes as f64 / 6000.0;
    holds(
        "the ratio is stored by logical",
        (info.compression_ratio - ratio).abs() < 1e-9,
    )
}
