#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use weightstore::{CoralFile, CoralModel, decode_coral_delta};

// A hostile file: either all of it, or a file that Coral wrote with some bytes changed.
fuzz_target!(|input: (u8, Vec<(u32, u8)>, Vec<u8>)| {
    let (choice, changes, whole) = input;
    let fixtures: [&[u8]; 4] = [
        include_bytes!("../../tests/data/coral-gzip.h5"),
        include_bytes!("../../tests/data/coral-lzf.h5"),
        include_bytes!("../../tests/data/coral-none.h5"),
        include_bytes!("../../tests/data/coral-deltas.h5"),
    ];
    let bytes = match fixtures.get(usize::from(choice) % 5) {
        None => whole,
        Some(fixture) => {
            let mut bytes = fixture.to_vec();
            for (at, value) in changes {
                let at = at as usize % bytes.len();
                bytes[at] = value;
            }
            bytes
        }
    };
    let Ok(file) = CoralFile::open("hostile.h5", Arc::new(bytes)) else {
        return;
    };
    for key in file.weights() {
        if let Ok(weight) = file.weight(key) {
            let about = file.describe(key);
            assert!(about.is_ok_and(|about| about.len_bytes == weight.bytes().len() as u64));
        }
    }
    for key in file.deltas() {
        let Ok(delta) = file.delta(key) else { continue };
        if let Ok(reference) = file.weight(&delta.reference_hash().to_string()) {
            let _ = decode_coral_delta(&delta, &reference);
        }
    }
    let _ = CoralModel::new(Arc::new(file), None);
});
