#![no_main]

use core_view::DType;
use libfuzzer_sys::fuzz_target;
use weightstore::{Delta, DeltaKind, WeightTensor, decode_coral_delta};

// Hostile payload and metadata of each kind, over a reference of any bits.
fuzz_target!(|input: (u8, u8, u8, &[u8], &[u8], &str)| {
    let (kind, dtype, columns, reference, payload, metadata) = input;
    let Some(kind) = DeltaKind::all().nth(usize::from(kind) % DeltaKind::all().len()) else {
        return;
    };
    let dtypes = [
        DType::F32,
        DType::F16,
        DType::F64,
        DType::I8,
        DType::U32,
        DType::I64,
        DType::BF16,
    ];
    let dtype = dtypes[usize::from(dtype) % dtypes.len()];
    let width = dtype.size_bytes().unwrap_or(1);
    let elements = reference.len() / width;
    let columns = u64::from(columns % 8).max(1);
    let shape = match (elements as u64).is_multiple_of(columns) {
        true => vec![elements as u64 / columns, columns],
        false => vec![elements as u64],
    };
    let bytes = reference[..elements * width].to_vec();
    let Ok(reference) = WeightTensor::new("w", dtype, &shape, bytes) else {
        return;
    };
    // What the metadata would have to say to be believed, so that the payload is reached.
    let rows = shape.first().copied().unwrap_or(0);
    let stated = format!(
        "{{\"original_shape\": {shape:?}, \"num_elements\": {elements}, \"num_rows\": {rows}, \
         \"num_cols\": {columns}, \"scale\": 0.5, \"offset\": NaN}}"
    );
    let hash = reference.compute_alias();
    for metadata in [metadata, &stated] {
        let delta = Delta::new(kind, dtype, &shape, hash, payload.to_vec()).with_metadata(metadata);
        if let Ok(decoded) = decode_coral_delta(&delta, &reference) {
            let fidelity = decoded.fidelity;
            assert_eq!(decoded.weight.bytes().len(), elements * width);
            assert!(fidelity.changed + fidelity.unknown <= fidelity.elements);
        }
    }
});
