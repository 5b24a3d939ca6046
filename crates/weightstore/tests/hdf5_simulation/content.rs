//! What is stored, and reading it back.

use std::collections::BTreeMap;

use core_view::DType;
use weightstore::{
    Delta, DeltaKind, HashKey, Hdf5Store, WeightError, WeightHash, WeightStore, WeightTensor,
};

/// Tensors and deltas by their hashes.
pub(crate) type Content = BTreeMap<WeightHash, Vec<u8>>;

/// Weights that there are.
pub(crate) const WEIGHTS: u64 = 40;

/// The weight of that number: many have the same length.
pub(crate) fn weight(number: u64) -> WeightTensor {
    let len = 40 + 700 * (number % 7);
    let bytes: Vec<u8> = (0..len).map(|i| (i * (number + 3) / 5) as u8).collect();
    WeightTensor::new(format!("w{number}"), DType::U8, &[len], bytes).unwrap()
}

/// A delta from the weight of that number.
pub(crate) fn delta(number: u64) -> Delta {
    let reference: HashKey = weight(number).compute_alias().into();
    let payload = vec![number as u8; 30 + number as usize];
    Delta::new(
        DeltaKind::Sparse,
        DType::U8,
        weight(number).shape(),
        reference,
        payload,
    )
}

/// What a store has, read back.
pub(crate) fn content(store: &Hdf5Store) -> Result<Content, WeightError> {
    let mut content = Content::new();
    for hash in store.list_weights()? {
        let weight = store.load(&hash.into())?.unwrap();
        assert_eq!(weight.compute_hash(), hash);
        content.insert(hash, weight.bytes().to_vec());
    }
    for id in store.list_deltas()? {
        let delta = store.load_delta(&id)?.unwrap();
        content.insert(id, delta.payload().to_vec());
    }
    Ok(content)
}
