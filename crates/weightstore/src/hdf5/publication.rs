//! Puts a new file in the place of an old one.

use std::sync::Arc;

use core_view::BufferMut;
use tier_nvme::{Alignment, FileName, NvmeError, Volume, VolumeFile};

use crate::WeightError;

/// Bytes written by one operation.
const PIECE_BYTES: usize = 4 << 20;

/// What the name of a file ends with until it is whole.
const SUFFIX: &str = ".new";

/// The name that a file has until it is whole.
pub(super) fn unpublished(name: &FileName) -> Result<FileName, WeightError> {
    FileName::new(format!("{name}{SUFFIX}")).map_err(|error| failed("name the new file", error))
}

/// Writes `bytes` under another name, makes them durable, and lets them take the place of what `name` names.
///
/// Until the rename is done the old file is untouched, and what was written is a file that the next
/// publication removes. A volume whose alignment is more than a byte has the file padded with zeros.
pub(super) fn publish(
    volume: &Arc<dyn Volume>,
    name: &FileName,
    bytes: &[u8],
) -> Result<(), WeightError> {
    let temporary = unpublished(name)?;
    match volume.remove(&temporary) {
        Ok(()) | Err(NvmeError::FileNotFound { .. }) => {}
        Err(error) => return Err(failed("remove an unfinished file", error)),
    }
    write(volume, &temporary, bytes)?;
    volume
        .rename(&temporary, name)
        .map_err(|error| failed("put the new file into its place", error))?;
    sync_directory(volume)?; // mutant: weights-hdf5-no-dirsync
    Ok(())
}

fn sync_directory(volume: &Arc<dyn Volume>) -> Result<(), WeightError> {
    let synced = volume.sync_directory();
    synced.map_err(|error| failed("sync the directory", error))
}

fn write(volume: &Arc<dyn Volume>, name: &FileName, bytes: &[u8]) -> Result<(), WeightError> {
    let report = volume.report();
    let Alignment {
        memory_bytes,
        offset_bytes: unit,
    } = report.alignment;
    let padded = bytes.len().next_multiple_of(unit);
    let file = volume
        .create(name, padded as u64)
        .map_err(|error| failed("create the new file", error))?;
    let piece_bytes = PIECE_BYTES.next_multiple_of(unit);
    for (number, piece) in bytes.chunks(piece_bytes).enumerate() {
        let len = piece.len().next_multiple_of(unit);
        let mut buffer = BufferMut::zeroed(len, memory_bytes)
            .map_err(|error| WeightError::storage("get memory for writing", error))?;
        if let Some(start) = buffer.get_mut(..piece.len()) {
            start.copy_from_slice(piece);
        }
        let offset = (number * piece_bytes) as u64;
        file.write(offset, buffer)
            .wait()
            .map_err(|error| WeightError::storage("write the new file", error))?;
    }
    sync(&*file)?; // mutant: weights-hdf5-no-fdatasync
    Ok(())
}

fn sync(file: &dyn VolumeFile) -> Result<(), WeightError> {
    let synced = file.sync().wait();
    synced.map_err(|error| WeightError::storage("sync the new file", error))
}

pub(super) fn failed(operation: &'static str, error: NvmeError) -> WeightError {
    WeightError::storage(operation, error)
}
