#![no_main]

use core_view::DType;
use libfuzzer_sys::fuzz_target;
use weightstore::{ChunkEncoding, Codec};

fuzz_target!(|input: (u8, &[u8])| {
    let (dtype, chunk) = input;
    let Some(dtype) = DType::all().nth(usize::from(dtype) % DType::all().len()) else {
        return;
    };
    if let Some((encoding, encoded)) = ChunkEncoding::encode(Codec::Auto, dtype, chunk) {
        let mut decoded = vec![0; chunk.len()];
        let outcome = encoding.decode(&encoded, &mut decoded);
        assert!(outcome.is_ok() && decoded == chunk);
    }
});
