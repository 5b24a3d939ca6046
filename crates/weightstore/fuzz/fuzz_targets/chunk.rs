#![no_main]

use libfuzzer_sys::fuzz_target;
use weightstore::ChunkEncoding;

// The first bytes name the encoding, the chunk's length and a range of it.
fuzz_target!(|input: (u8, u16, u16, &[u8])| {
    let (id, len, start, encoded) = input;
    let Some(encoding) = ChunkEncoding::from_id(id % 4) else {
        return;
    };
    let mut whole = vec![0; usize::from(len)];
    let decoded = encoding.decode(encoded, &mut whole);
    let start = usize::from(start).min(whole.len());
    let mut part = vec![0; whole.len() - start];
    let range = encoding.decode_range(encoded, whole.len(), start, &mut part);
    if decoded.is_ok() && range.is_ok() {
        assert_eq!(part, whole[start..]);
    }
});
