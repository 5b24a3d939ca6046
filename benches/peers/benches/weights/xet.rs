//! Xet's chunks: of each the bytes in four groups or as they are, then LZ4, as its own sampling says.

use core_view::DType;
use xet_core_structures::xorb_object::constants::TARGET_CHUNK_SIZE;
use xet_core_structures::xorb_object::{
    CompressionScheme, deserialize_chunk_to_writer, serialize_chunk,
};

/// Chunks of the length that its chunks have on average, which are cut by content there.
pub(crate) fn encode(_: DType, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoded = Vec::with_capacity(bytes.len());
    for chunk in bytes.chunks(*TARGET_CHUNK_SIZE) {
        serialize_chunk(chunk, &mut encoded, CompressionScheme::Auto).ok()?;
    }
    Some(encoded)
}

pub(crate) fn decode(_: DType, mut encoded: &[u8], target: &mut [u8]) {
    for chunk in target.chunks_mut(*TARGET_CHUNK_SIZE) {
        let mut rest = &mut chunk[..];
        deserialize_chunk_to_writer(&mut encoded, &mut rest).unwrap();
        assert!(rest.is_empty());
    }
}
