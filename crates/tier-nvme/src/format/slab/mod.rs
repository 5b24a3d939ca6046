//! The structures of a slab of blocks, as bytes; `docs/formats/nvme.md` describes them.

mod entry;
mod geometry;
mod record;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use entry::{BlockEdit, BlockPlace};
pub(crate) use geometry::{SlabSuperblock, SlotGeometry, blocks_name, blocks_segment_id};
pub(crate) use record::{LogPlace, Record, is_begun};
pub(crate) use table::{CHUNK_BYTES, ChunkWriter, TableHeader, chunk_entries, table_file_bytes};
