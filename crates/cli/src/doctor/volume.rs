//! What the file system of a directory can do.

use std::io;
use std::path::Path;

use tempfile::TempDir;
use tier_nvme::{EngineChoice, FileMode, RealVolume, Volume, VolumeOptions};

use super::Ability;
use crate::error::CliError;

/// A directory of a moment.
pub(super) fn scratch_in(dir: &Path) -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix(".stepwell-doctor-")
        .tempdir_in(dir)
        .map_err(|error| io::Error::from(error.kind()))
}

/// Opens a volume there, and tells what it got.
pub(super) fn abilities(place: &Path) -> Result<Vec<Ability>, CliError> {
    let options = VolumeOptions::default().with_engine(EngineChoice::IoUring);
    let report = RealVolume::open(place, options)?.report();
    let uring = report.engine == "io_uring";
    let direct = match &report.mode {
        FileMode::Direct => Ok(format!(
            "memory at multiples of {} bytes, offsets of {}",
            report.alignment.memory_bytes, report.alignment.offset_bytes
        )),
        FileMode::Buffered { reason } => Err(reason.clone()),
    };
    Ok(vec![
        Ability {
            ability: "io_uring",
            available: uring,
            finding: match report.engine_reason {
                Some(reason) => format!("{} instead: {reason}", report.engine),
                None => "the kernel allows it".to_owned(),
            },
            enables: "many reads and writes in flight from one thread",
        },
        Ability {
            ability: "O_DIRECT",
            available: direct.is_ok(),
            finding: direct.unwrap_or_else(|reason| reason),
            enables: "the speed of the device, with nothing in the page cache",
        },
    ])
}

/// Refuses work that needs more room than there is.
///
/// # Errors
/// [`CliError::NoRoom`], which names `what` needs the room and, as `hint`, what helps beside another directory.
pub(crate) fn check_room(
    dir: &Path,
    needed_bytes: u64,
    what: &'static str,
    hint: &'static str,
) -> Result<(), CliError> {
    let free_bytes = free_bytes(dir)?;
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(CliError::NoRoom {
        what,
        hint,
        path: dir.display().to_string(),
        needed_bytes,
        free_bytes,
    })
}

/// Bytes that may still be written to a file system.
pub(super) fn free_bytes(dir: &Path) -> Result<u64, CliError> {
    let found = rustix::fs::statvfs(dir)
        .map_err(|error| CliError::file("look at the free space of", dir, error.into()))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_refused_where_there_is_no_room_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let check = |needed| check_room(folder.path(), needed, "the tour", " or a smaller --model");
        check(1).unwrap();
        let refused = check(u64::MAX).unwrap_err();
        assert!(
            matches!(refused, CliError::NoRoom { needed_bytes: u64::MAX, free_bytes, .. } if free_bytes > 0)
        );
        let text = refused.to_string();
        assert!(
            text.starts_with("the tour needs ") && text.contains(" or a smaller --model"),
            "{text}"
        );
    }
}
