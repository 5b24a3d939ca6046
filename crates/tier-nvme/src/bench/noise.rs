//! Bytes to store.

/// Fills memory with bytes that nothing can shrink, by a seed.
pub fn fill_noise(target: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for chunk in target.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let bytes = state.to_le_bytes();
        let (bytes, _) = bytes.split_at(chunk.len());
        chunk.copy_from_slice(bytes);
    }
}

/// Makes noise the value of this number.
pub fn mark_value(value: &mut [u8], number: u64) {
    if let Some(head) = value.first_chunk_mut::<8>() {
        *head = number.to_le_bytes();
    }
}

/// Whether a value is the one of this number, by its first bytes.
pub fn is_value(value: &[u8], number: u64) -> bool {
    value.first_chunk::<8>() == Some(&number.to_le_bytes())
}
