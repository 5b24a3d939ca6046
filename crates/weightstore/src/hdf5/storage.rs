//! What a dataset claims, held against what the file has.

use hdf5_pure::{Chunk, Dataset, Layout};

use super::library::{call, unusable};
use crate::WeightError;

/// The identifiers of the filters that Coral's files can have.
const DEFLATE: u16 = 1;
const SHUFFLE: u16 = 2;
const FLETCHER32: u16 = 3;
const LZF: u16 = 32000;

/// Most bytes that one stored byte decodes to: a bound of DEFLATE, and of LZF's longest reference.
const DEFLATE_EXPANSION: u64 = 1032;
const LZF_EXPANSION: u64 = 128;

/// Decoded bytes that a chunk may have besides.
const EXPANSION_SLACK: u64 = 1024;

/// The bytes of a dataset in memory and in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) len_bytes: u64,
    pub(super) stored_bytes: u64,
}

/// A dataset of a file, by the names that messages give them.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) dataset: &'a str,
    pub(super) file_bytes: u64,
}

impl Place<'_> {
    pub(super) fn wrong(&self, what: &str) -> WeightError {
        unusable(self.file, format!("{}: {what}", self.dataset))
    }
}

/// The bytes of a dataset, once it is certain that the file can have them.
///
/// What is allocated later is what is checked here: no length is taken on trust.
pub(super) fn extent(place: Place<'_>, dataset: &Dataset) -> Result<Extent, WeightError> {
    let read = |what| format!("{what} of {}", place.dataset);
    let shape = call(place.file, &read("the shape"), || dataset.shape())?;
    let width = call(place.file, &read("the type"), || dataset.element_size())?;
    let len_bytes = shape
        .iter()
        .try_fold(width, |product, &dimension| product.checked_mul(dimension))
        .ok_or_else(|| place.wrong("its shape has too many elements"))?;
    if len_bytes == 0 {
        return Ok(Extent {
            len_bytes: 0,
            stored_bytes: 0,
        });
    }
    let layout = call(place.file, &read("the layout"), || dataset.layout())?;
    let stored_bytes = match layout {
        Layout::Compact { size } if size == len_bytes => size,
        Layout::Contiguous {
            address: Some(address),
            size,
        } if size == len_bytes && is_inside(address, size, place.file_bytes) => size,
        Layout::Chunked { chunk_shape, .. } => {
            let grid = Grid::new(&shape, &chunk_shape, width)
                .ok_or_else(|| place.wrong("its chunks do not fit its shape"))?;
            let chunks = call(place.file, &read("the chunks"), || dataset.chunks())?;
            chunked(place, dataset, &grid, &chunks)?
        }
        Layout::Virtual => return Err(place.wrong("its content is in other files")),
        _ => return Err(place.wrong("its content is not all in the file")),
    };
    Ok(Extent {
        len_bytes,
        stored_bytes,
    })
}

/// The content of a dataset.
pub(super) fn read(
    place: Place<'_>,
    dataset: &Dataset,
    extent: Extent,
) -> Result<Vec<u8>, WeightError> {
    if extent.len_bytes == 0 {
        return Ok(Vec::new());
    }
    reserve(place, extent.len_bytes)?;
    let what = format!("the content of {}", place.dataset);
    let bytes = call(place.file, &what, || dataset.read_raw())?;
    if bytes.len() as u64 == extent.len_bytes {
        Ok(bytes)
    } else {
        Err(place.wrong("its content has another length than its shape"))
    }
}

/// Sees whether there is memory for so much: the library would end the program.
fn reserve(place: Place<'_>, len_bytes: u64) -> Result<(), WeightError> {
    let len = usize::try_from(len_bytes).ok();
    let reserved = len.and_then(|len| Vec::<u8>::new().try_reserve_exact(len).ok());
    reserved.ok_or_else(|| WeightError::OutOfMemory {
        what: place.dataset.to_owned(),
        requested_bytes: len_bytes,
    })
}

/// The chunks that a shape is cut into.
struct Grid {
    chunks: u64,
    chunk_bytes: u64,
}

impl Grid {
    fn new(shape: &[u64], chunk_shape: &[u64], width: u64) -> Option<Self> {
        if shape.len() != chunk_shape.len() || chunk_shape.contains(&0) {
            return None;
        }
        let mut grid = Self {
            chunks: 1,
            chunk_bytes: width,
        };
        for (&dimension, &chunk) in shape.iter().zip(chunk_shape) {
            grid.chunks = grid.chunks.checked_mul(dimension.div_ceil(chunk))?;
            grid.chunk_bytes = grid.chunk_bytes.checked_mul(chunk)?;
        }
        Some(grid)
    }
}

fn chunked(
    place: Place<'_>,
    dataset: &Dataset,
    grid: &Grid,
    chunks: &[Chunk],
) -> Result<u64, WeightError> {
    if chunks.len() as u64 != grid.chunks {
        return Err(place.wrong("not all of its chunks are there"));
    }
    let expansion = expansion(place, &dataset.filters())?;
    let mut stored_bytes = 0_u64;
    for chunk in chunks {
        let most = chunk
            .storage_size
            .saturating_mul(expansion)
            .saturating_add(EXPANSION_SLACK);
        if !is_inside(chunk.address, chunk.storage_size, place.file_bytes) {
            return Err(place.wrong("a chunk of it is not inside the file"));
        }
        if grid.chunk_bytes > most {
            return Err(place.wrong("a chunk of it claims more than it can hold"));
        }
        stored_bytes = stored_bytes.saturating_add(chunk.storage_size);
    }
    // Chunks that share bytes would let a small file claim any length.
    if stored_bytes > place.file_bytes {
        return Err(place.wrong("its chunks overlap"));
    }
    Ok(stored_bytes)
}

/// How many bytes one stored byte can become.
fn expansion(place: Place<'_>, filters: &[u16]) -> Result<u64, WeightError> {
    let mut compressing = filters
        .iter()
        .filter(|&&filter| filter == DEFLATE || filter == LZF);
    let known = [DEFLATE, SHUFFLE, FLETCHER32, LZF];
    if filters.iter().any(|filter| !known.contains(filter)) {
        return Err(place.wrong("it is compressed by a filter that is none of gzip and lzf"));
    }
    let expansion = match compressing.next() {
        None => 1,
        Some(&DEFLATE) => DEFLATE_EXPANSION,
        Some(_) => LZF_EXPANSION,
    };
    match compressing.next() {
        None => Ok(expansion),
        Some(_) => Err(place.wrong("it is compressed twice")),
    }
}

fn is_inside(address: u64, len_bytes: u64, file_bytes: u64) -> bool {
    address
        .checked_add(len_bytes)
        .is_some_and(|end| end <= file_bytes)
}
