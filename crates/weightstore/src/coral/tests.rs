use core_view::DType;
use proptest::prelude::*;

use super::*;

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn of(values: &[f32]) -> WeightTensor {
    WeightTensor::new("w", DType::F32, &[values.len() as u64], floats(values)).unwrap()
}

/// A float32_raw delta, as Coral makes it.
fn raw(weight: &[f32], reference: &WeightTensor) -> Delta {
    let base = reference.data().as_slice_of::<f32>().unwrap();
    let difference: Vec<f32> = weight.iter().zip(base).map(|(w, r)| w - r).collect();
    let hash = reference.compute_alias();
    Delta::new(
        DeltaKind::Float32Raw,
        DType::F32,
        reference.shape(),
        hash,
        floats(&difference),
    )
}

fn decoded(weight: &[f32], reference: &[f32]) -> (Vec<f32>, CoralFidelity) {
    let reference = of(reference);
    let decoded = decode_coral_delta(&raw(weight, &reference), &reference).unwrap();
    let values = decoded.weight.data().as_slice_of::<f32>().unwrap().to_vec();
    (values, decoded.fidelity)
}

#[test]
fn infinities_become_what_numpy_makes_of_them() {
    let (values, fidelity) = decoded(
        &[f32::INFINITY, f32::INFINITY, f32::NAN, 1.0, 2.0],
        &[f32::INFINITY, 1.0, 1.0, f32::INFINITY, 2.5],
    );
    assert!(values[0].is_nan());
    assert_eq!(values[1], f32::INFINITY);
    assert!(values[2].is_nan());
    assert!(values[3].is_nan());
    assert_eq!(values[4], 2.0);
    assert!(!fidelity.is_exact());
    assert!(fidelity.unknown + fidelity.changed >= 3);
}

#[test]
fn close_elements_are_certainly_exact() {
    let reference: Vec<f32> = (1..500).map(|i| i as f32 * 0.37).collect();
    let weight: Vec<f32> = reference.iter().map(|value| value * 1.01).collect();
    let (values, fidelity) = decoded(&weight, &reference);
    assert_eq!(values, weight);
    assert!(fidelity.is_exact(), "{fidelity:?}");
}

#[test]
fn another_reference_is_refused() {
    let reference = of(&[1.0, 2.0]);
    let delta = raw(&[1.5, 2.5], &reference);
    let other = decode_coral_delta(&delta, &of(&[1.0, 3.0]));
    assert!(matches!(other, Err(WeightError::HashMismatch { .. })));
}

#[test]
fn payloads_that_do_not_fit_are_refused() {
    let reference = of(&[1.0, 2.0]);
    let hash = reference.compute_alias();
    for kind in DeltaKind::all() {
        for (payload, metadata) in [
            (vec![1_u8, 2, 3], ""),
            (
                vec![0xFF; 64],
                r#"{"original_shape": [2], "num_elements": 2}"#,
            ),
            (
                vec![0xFF; 64],
                r#"{"num_rows": 18446744073709551615, "num_cols": 2, "num_elements": 2}"#,
            ),
            (floats(&[7.0, 1.0]), "{"),
        ] {
            let delta = Delta::new(kind, DType::F32, &[2], hash, payload).with_metadata(metadata);
            let refused = decode_coral_delta(&delta, &reference);
            assert!(
                matches!(refused, Err(WeightError::CoralDelta { .. })),
                "{kind:?} {metadata}"
            );
        }
    }
}

proptest! {
    /// What is called certain is so: with two floats of any bits, a decoded element that is not the one
    /// encoded is counted.
    #[test]
    fn differing_elements_are_counted(pairs in prop::collection::vec((any::<u32>(), any::<u32>()), 1..64)) {
        let weight: Vec<f32> = pairs.iter().map(|pair| f32::from_bits(pair.0)).collect();
        let reference: Vec<f32> = pairs.iter().map(|pair| f32::from_bits(pair.1)).collect();
        let (values, fidelity) = decoded(&weight, &reference);
        let differing = values
            .iter()
            .zip(&weight)
            .filter(|(value, weight)| value.to_bits() != weight.to_bits())
            .count() as u64;
        prop_assert!(differing <= fidelity.changed + fidelity.unknown);
        prop_assert!(fidelity.changed <= differing);
    }

    #[test]
    fn differences_of_like_size_are_counted(pairs in prop::collection::vec((-4.0_f32..4.0, -4.0_f32..4.0), 1..64)) {
        let weight: Vec<f32> = pairs.iter().map(|pair| pair.0).collect();
        let reference: Vec<f32> = pairs.iter().map(|pair| pair.1).collect();
        let (values, fidelity) = decoded(&weight, &reference);
        let differing = values.iter().zip(&weight).filter(|(value, weight)| value != weight).count() as u64;
        prop_assert!(differing <= fidelity.changed + fidelity.unknown);
        prop_assert!(fidelity.changed <= differing);
    }
}
