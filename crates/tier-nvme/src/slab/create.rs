//! Making a slab, and knowing one.

use super::SlabConfig;
use super::commit::pages_of;
use super::tables::{TABLE_NAMES, UNFINISHED_SUFFIX, create_unfinished};
use crate::format::slab::{
    ChunkWriter, SlabSuperblock, TableHeader, blocks_segment_id, table_file_bytes,
};
use crate::format::{FormatError, PAGE_BYTES, StoreId, VERSION};
use crate::store::Damage;
use crate::{FileName, NvmeError, Volume};

pub(super) const SUPERBLOCK_NAME: &str = "SLAB";

/// Makes an empty slab: two tables without blocks, then the superblock.
pub(super) fn create(volume: &dyn Volume, config: &SlabConfig) -> Result<(), NvmeError> {
    let store_id = StoreId(volume.unique_id());
    let geometry = config.geometry();
    let segments_max = config.capacity_bytes() / geometry.segment_bytes;
    let table_bytes = table_file_bytes(segments_max, geometry.slots());
    for (name, second) in TABLE_NAMES.into_iter().zip([false, true]) {
        let (_, chunk_count, body_checksum) = ChunkWriter::new(store_id, 1).finish();
        let header = TableHeader {
            store_id,
            clean: true,
            second,
            generation: 1,
            sequence: 0,
            record_checksum: 0,
            segment_id_next: 0,
            segment_count: 0,
            entry_count: 0,
            chunk_count,
            body_checksum,
        };
        write_new_file(volume, name, table_bytes, &header.encode())?;
    }
    let superblock = SlabSuperblock {
        store_id,
        geometry,
        incompatible: 0,
        compatible: 0,
    };
    let pages = superblock.encode().repeat(2);
    write_new_file(volume, SUPERBLOCK_NAME, pages.len() as u64, &pages)
}

fn write_new_file(
    volume: &dyn Volume,
    name: &str,
    len_bytes: u64,
    front: &[u8],
) -> Result<(), NvmeError> {
    let name = FileName::new(name)?;
    let (temporary, file) = create_unfinished(volume, &name, len_bytes)?;
    file.write(0, pages_of(front)?).wait()?;
    file.sync().wait()?;
    volume.rename(&temporary, &name)?;
    volume.sync_directory()
}

/// Whether a file of this name was left by a slab that did not finish it.
pub(super) fn is_unfinished(name: &FileName) -> bool {
    let target = name.as_str().strip_suffix(UNFINISHED_SUFFIX);
    target.is_some_and(|name| name == SUPERBLOCK_NAME || TABLE_NAMES.contains(&name))
}

/// Whether the volume holds a slab.
///
/// # Errors
/// [`NvmeError::NotAStore`] if it holds something else.
pub(super) fn is_slab(volume: &dyn Volume) -> Result<bool, NvmeError> {
    let names = volume.list()?;
    if names.iter().any(|name| name.as_str() == SUPERBLOCK_NAME) {
        return Ok(true);
    }
    // Segments are made only after the superblock: without it, somebody took it away.
    let is_foreign =
        |name: &&FileName| !(TABLE_NAMES.contains(&name.as_str()) || is_unfinished(name));
    let Some(name) = names.iter().find(is_foreign) else {
        return Ok(false);
    };
    let reason = if blocks_segment_id(name).is_some() {
        format!("it holds {name} but no {SUPERBLOCK_NAME}; restore that file")
    } else {
        format!("it holds {name}; choose an empty or a new directory")
    };
    let path = volume.report().location;
    Err(NvmeError::NotAStore { path, reason })
}

/// The superblock, and what is wrong with a copy of it.
pub(super) fn read_superblock(
    volume: &dyn Volume,
) -> Result<(SlabSuperblock, Vec<Damage>), NvmeError> {
    let file = volume.open(&FileName::new(SUPERBLOCK_NAME)?)?;
    let path = volume.report().location;
    let mut found = None;
    let mut damage = Vec::new();
    let mut refusal = None;
    for copy in 0..2_usize {
        let at = (copy * PAGE_BYTES) as u64;
        let len_bytes = file.len_bytes()?;
        let decoded = if at + PAGE_BYTES as u64 > len_bytes {
            Err(FormatError::Damaged("the file ends before it"))
        } else {
            let page = file.read_blocking(at, super::commit::aligned_buffer(PAGE_BYTES)?)?;
            SlabSuperblock::decode(&page)
        };
        match decoded {
            Ok(superblock) => found = found.or(Some(superblock)),
            Err(FormatError::NewerVersion(version)) => refusal = Some(version),
            Err(error) => {
                damage.push(damaged(
                    "superblock",
                    format!("copy {copy}"),
                    error.reason(),
                ));
            }
        }
    }
    match (found, refusal) {
        (Some(superblock), None) => Ok((superblock, damage)),
        (_, Some(found)) => Err(NvmeError::NewerVersion {
            path,
            structure: "slab superblock",
            found,
            supported: VERSION,
        }),
        (None, None) => Err(NvmeError::Corrupt {
            structure: "superblock",
            location: format!("both copies in {SUPERBLOCK_NAME} of {path}"),
            reason: damage
                .into_iter()
                .next()
                .map(|it| it.reason)
                .unwrap_or_default(),
        }),
    }
}

/// A structure that is not as it was written.
pub(super) fn damaged(structure: &'static str, location: String, reason: String) -> Damage {
    Damage {
        structure,
        location,
        key: None,
        reason,
    }
}
