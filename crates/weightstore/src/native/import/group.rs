//! Chunks that are read, hashed and decided on together.

use std::ops::Range;

use core_view::BufferMut;
use core_view::safetensors::TensorInfo;

use crate::identity::{CHUNK_LEN_BYTES, Leaf, chunk_count};
use crate::native::body_writer::EncodedChunk;

/// Bytes that are in memory for one group at most. While one is encoded and one is decided on, less than two of this
/// size are read ahead, in one group or several.
const GROUP_BYTES: usize = 16 << 20;

/// Chunks that are read ahead at least, and groups at most: between large tensors there are groups of little, and with no
/// more than one of those ahead threads would have nothing to do until it is decided on.
pub(super) const CHUNKS_AHEAD_MIN: usize = GROUP_BYTES / CHUNK_LEN_BYTES;
pub(super) const GROUPS_AHEAD_MAX: usize = 8;

/// Tensors in one group.
const PARTS_MAX: usize = 4096;

/// Chunks at the start of a large tensor by which a stored one is found; they fill a group.
pub(crate) const HINT_CHUNKS: usize = GROUP_BYTES / CHUNK_LEN_BYTES;

/// Consecutive chunks of one tensor.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Index of the tensor in its file.
    pub(super) tensor: usize,
    /// Its chunks among those of the group.
    pub(super) slots: Range<usize>,
    /// Whether the tensor ends with it.
    pub(super) last: bool,
}

/// A chunk on its way.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) raw: Option<BufferMut>,
    pub(super) leaf: Leaf,
    pub(super) encoded: Option<EncodedChunk>,
}

/// Parts of consecutive tensors.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) parts: Vec<Part>,
    pub(super) slots: Vec<Slot>,
    /// Where in the file's data they end.
    pub(super) end_bytes: u64,
    /// Results that workers still owe.
    pub(super) waiting: usize,
}

/// Where in a file the next group begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) tensor: usize,
    pub(super) chunk: u64,
}

/// A chunk that is to be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlannedChunk {
    /// Offset in the file's data section.
    pub(super) offset_bytes: u64,
    pub(super) len: usize,
}

impl Cursor {
    /// Plans the next group and moves on; `None` at the end of the file.
    ///
    /// A tensor above [`HINT_CHUNKS`] chunks begins a group, so that its first part is that long.
    pub(super) fn next_group(
        &mut self,
        tensors: &[TensorInfo],
    ) -> Option<(Vec<Part>, Vec<PlannedChunk>)> {
        let mut parts = Vec::new();
        let mut chunks: Vec<PlannedChunk> = Vec::new();
        let mut room = GROUP_BYTES;
        while let Some(info) = tensors.get(self.tensor) {
            let count = chunk_count(info.len_bytes());
            let begins_large = self.chunk == 0 && count > HINT_CHUNKS as u64;
            if parts.len() >= PARTS_MAX || (begins_large && !parts.is_empty()) {
                break;
            }
            let first_slot = chunks.len();
            while self.chunk < count {
                let chunk = planned(info, self.chunk);
                if chunk.len > room && !chunks.is_empty() {
                    break;
                }
                room = room.saturating_sub(chunk.len);
                chunks.push(chunk);
                self.chunk += 1;
            }
            let last = self.chunk == count;
            if chunks.len() == first_slot && !last {
                break;
            }
            parts.push(Part {
                tensor: self.tensor,
                slots: first_slot..chunks.len(),
                last,
            });
            if !last {
                break;
            }
            *self = Self {
                tensor: self.tensor + 1,
                chunk: 0,
            };
        }
        (!parts.is_empty()).then_some((parts, chunks))
    }
}

fn planned(info: &TensorInfo, chunk: u64) -> PlannedChunk {
    let start = chunk * CHUNK_LEN_BYTES as u64;
    let left = info.len_bytes().saturating_sub(start);
    PlannedChunk {
        offset_bytes: info.start + start,
        len: left.min(CHUNK_LEN_BYTES as u64) as usize,
    }
}

#[cfg(test)]
mod tests {
    use core_view::DType;
    use core_view::safetensors::HeaderBuilder;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn groups_cover_every_byte_in_order(
            lens in proptest::collection::vec(
                prop_oneof![0_u64..5000, (1_u64 << 20) - 2..(1 << 20) + 3, 0_u64..(40 << 20)],
                0..12,
            ),
        ) {
            let builder = lens.iter().enumerate().fold(HeaderBuilder::new(), |builder, (i, len)| {
                builder.tensor(i.to_string(), DType::U8, &[*len])
            });
            let header = builder.build().unwrap();
            let mut cursor = Cursor::default();
            let (mut at, mut done) = (0, 0);
            while let Some((parts, chunks)) = cursor.next_group(header.tensors()) {
                prop_assert!(chunks.iter().map(|chunk| chunk.len).sum::<usize>() <= GROUP_BYTES);
                for part in parts {
                    prop_assert_eq!(part.tensor, done);
                    let info = &header.tensors()[part.tensor];
                    let count = chunk_count(info.len_bytes());
                    if at == info.start && count > HINT_CHUNKS as u64 {
                        prop_assert_eq!(part.slots.len(), HINT_CHUNKS);
                    }
                    for chunk in &chunks[part.slots.clone()] {
                        prop_assert_eq!(chunk.offset_bytes, at);
                        at += chunk.len as u64;
                    }
                    if part.last {
                        prop_assert_eq!(at, info.end);
                        done += 1;
                    }
                }
            }
            prop_assert_eq!((at, done), (header.data_len(), lens.len()));
        }
    }
}
