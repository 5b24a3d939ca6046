//! Memory maps of files.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use core_view::{Access, BufferOwner, TensorStorage};
use memmap2::{Mmap, MmapOptions};

/// A map, which keeps its file in place even after that was removed.
struct MapOwner {
    _map: Mmap,
}

// SAFETY: a map stays at its address until it is dropped, and is not written through here; that nobody
// changes its part of the file is what the caller of `map` promises.
unsafe impl BufferOwner for MapOwner {
    fn access(&self) -> Access {
        Access::ReadOnly
    }
}

/// Maps `len_bytes` (not zero) of `file` from `offset_bytes` for reading.
///
/// # Safety
/// The range must lie in the file, and nobody may write to it or cut it off while any view lives.
pub(super) unsafe fn map(
    file: &File,
    offset_bytes: u64,
    len_bytes: usize,
) -> io::Result<TensorStorage> {
    let mut options = MmapOptions::new();
    options.offset(offset_bytes).len(len_bytes);
    // SAFETY: the caller sees to it that the bytes neither change nor vanish.
    let map = unsafe { options.map(file) }?;
    let pointer = NonNull::new(map.as_ptr().cast_mut()).unwrap_or(NonNull::dangling());
    let owner = Arc::new(MapOwner { _map: map });
    // SAFETY: the map has `len_bytes` readable bytes at `pointer` for as long as the owner lives.
    Ok(unsafe { TensorStorage::from_owner(pointer, len_bytes, owner) })
}
