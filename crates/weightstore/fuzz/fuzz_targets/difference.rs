#![no_main]

use core_view::DType;
use libfuzzer_sys::fuzz_target;
use weightstore::{Difference, decode_delta, encode_delta};

// Both ways: hostile bytes as a difference, and a difference of any two inputs.
fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (dtype, base, other) = input;
    if let Ok(difference) = Difference::parse(other) {
        let len = difference.target_len_bytes().min(1 << 20) as usize;
        let _ = difference.decode_range(base, 0, &mut vec![0; len]);
    }
    let Some(dtype) = DType::all().nth(usize::from(dtype) % DType::all().len()) else {
        return;
    };
    if let Ok(delta) = encode_delta(base, other, dtype) {
        let mut decoded = vec![0; other.len()];
        let outcome = decode_delta(base, &delta, &mut decoded);
        assert!(outcome.is_ok() && decoded == other);
    }
});
