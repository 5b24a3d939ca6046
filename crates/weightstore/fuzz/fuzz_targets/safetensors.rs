#![no_main]

use core_view::safetensors::{Header, ShardIndex};
use libfuzzer_sys::fuzz_target;

// A hostile file as the start of a model, and as the index of one in parts.
fuzz_target!(|input: (u32, &[u8])| {
    let (len, file) = input;
    // Of a long file a long header is believed, up to the limit of the format.
    for len in [u64::from(len) % (32 << 20), file.len() as u64] {
        let Ok(header) = Header::read(&mut &file[..], len) else {
            continue;
        };
        assert_eq!(header.data_start() + header.data_len(), len);
        let mut at = 0;
        for tensor in header.tensors() {
            assert_eq!(tensor.start, at);
            assert_eq!(header.get(&tensor.name), Some(tensor));
            at = tensor.end;
        }
        assert_eq!(at, header.data_len());
    }
    if let Ok(index) = ShardIndex::parse(file) {
        for (tensor, shard) in index.tensors() {
            assert_eq!(index.shard_of(tensor), Some(shard));
            assert!(!shard.contains(['/', '\\', '\0']) && shard != "..");
        }
    }
});
