//! Finds out what a directory allows: writing, direct I/O, and at what alignment.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use core_view::BufferMut;
use rustix::fs::{AtFlags, OFlags, StatxFlags};

use super::VolumeOptions;
use super::directory::Directory;
use crate::{Alignment, FileMode, NvmeError};

/// How many existing files are tried where none can be created.
const SAMPLE_FILES_MAX: usize = 16;

/// Alignments to try where the kernel gives none, or one that does not work.
const LADDER_BYTES: [usize; 3] = [512, 4096, 65_536];

/// What a directory allows.
#[derive(Debug)]
pub(super) struct Probed {
    /// Why nothing can be written, if so.
    pub(super) read_only: Option<String>,
    pub(super) mode: FileMode,
    pub(super) alignment: Alignment,
}

/// A file of the probe's own, removed in the end whatever happens.
struct ProbeFile<'a> {
    directory: &'a Directory,
    name: String,
}

impl Drop for ProbeFile<'_> {
    fn drop(&mut self) {
        // It is hidden from listings, and the next probe has another name.
        let _ = self.directory.remove(&self.name);
    }
}

/// What `statx` says of direct I/O on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stated {
    /// These are the alignments.
    Aligned(Alignment),
    /// The file can't do it.
    Unsupported,
    /// The kernel or the file system does not say.
    Unknown,
}

/// Probes `directory` by writing and reading a file, or by reading where nothing can be written.
pub(super) fn probe(directory: &Directory, options: &VolumeOptions) -> Result<Probed, NvmeError> {
    let (probe_file, read_only) = if options.read_only {
        (None, Some("it was opened for reading only".to_owned()))
    } else {
        create_probe_file(directory)?
    };
    let direct = if !options.direct_io {
        Err("direct I/O was turned off in the options".to_owned())
    } else if let Some(probe_file) = &probe_file {
        probe_by_writing(directory, &probe_file.name)
    } else {
        probe_by_reading(directory)
    };
    let (mode, alignment) = match direct {
        Ok(alignment) => (FileMode::Direct, alignment),
        Err(reason) => (
            FileMode::Buffered { reason },
            Alignment {
                memory_bytes: 1,
                offset_bytes: 1,
            },
        ),
    };
    Ok(Probed {
        read_only,
        mode,
        alignment,
    })
}

/// A probe file, or why the directory is read-only; neither on a disk too full for it.
fn create_probe_file(
    directory: &Directory,
) -> Result<(Option<ProbeFile<'_>>, Option<String>), NvmeError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!(".probe-{}-{number}", std::process::id());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
    match directory.open_entry(&name, flags) {
        Ok(_) => Ok((Some(ProbeFile { directory, name }), None)),
        Err(error) => match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Ok((None, Some(error.to_string())))
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Ok((None, None)),
            _ => Err(NvmeError::from_io(
                "probe directory",
                directory.path_of(&name),
                0,
                error,
            )),
        },
    }
}

fn probe_by_writing(directory: &Directory, name: &str) -> Result<Alignment, String> {
    let file = directory
        .open_entry(name, OFlags::RDWR | OFlags::DIRECT)
        .map_err(|error| format!("the file system refuses O_DIRECT: {error}"))?;
    let stated = stated_alignment(&file);
    if stated == Stated::Unsupported {
        return Err("the file system has no direct I/O".to_owned());
    }
    if stated == Stated::Unknown && accepts_misaligned_write(&file) {
        return Err("the file system accepts O_DIRECT but does not act on it".to_owned());
    }
    let mut reason = String::new();
    for alignment in candidates(stated) {
        match try_write_and_read(&file, alignment) {
            Ok(()) => return Ok(alignment),
            // What can't be tried on a full disk was stated by the kernel, or can be read elsewhere.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return match stated {
                    Stated::Aligned(alignment) => Ok(alignment),
                    _ => probe_by_reading(directory),
                };
            }
            Err(error) => reason = error.to_string(),
        }
    }
    Err(format!("a direct write and read back failed: {reason}"))
}

fn probe_by_reading(directory: &Directory) -> Result<Alignment, String> {
    let names = directory.list().map_err(|error| error.to_string())?;
    let mut reason = "no file is there to try direct I/O on".to_owned();
    for name in names.iter().take(SAMPLE_FILES_MAX) {
        let file = match directory.open_entry(name.as_str(), OFlags::RDONLY | OFlags::DIRECT) {
            Ok(file) => file,
            Err(error) => {
                reason = format!("the file system refuses O_DIRECT: {error}");
                continue;
            }
        };
        match stated_alignment(&file) {
            Stated::Unsupported => return Err("the file system has no direct I/O".to_owned()),
            Stated::Unknown if accepts_misaligned_read(&file) => {
                return Err("the file system accepts O_DIRECT but does not act on it".to_owned());
            }
            stated => {
                for alignment in candidates(stated) {
                    match try_read(&file, alignment) {
                        Ok(()) => return Ok(alignment),
                        Err(error) => reason = format!("a direct read failed: {error}"),
                    }
                }
            }
        }
    }
    Err(reason)
}

fn stated_alignment(file: &File) -> Stated {
    let Ok(status) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Stated::Unknown;
    };
    if status.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Stated::Unknown;
    }
    match (status.stx_dio_mem_align, status.stx_dio_offset_align) {
        (0, _) | (_, 0) => Stated::Unsupported,
        (memory, offset) if memory.is_power_of_two() && offset.is_power_of_two() => {
            Stated::Aligned(Alignment {
                memory_bytes: memory as usize,
                offset_bytes: offset as usize,
            })
        }
        _ => Stated::Unknown,
    }
}

fn candidates(stated: Stated) -> Vec<Alignment> {
    let stated = match stated {
        Stated::Aligned(alignment) => Some(alignment),
        Stated::Unsupported | Stated::Unknown => None,
    };
    let ladder = LADDER_BYTES.map(|bytes| Alignment {
        memory_bytes: bytes,
        offset_bytes: bytes,
    });
    let least_bytes = stated.map_or(0, |alignment| alignment.offset_bytes);
    stated
        .into_iter()
        .chain(
            ladder
                .into_iter()
                .filter(|alignment| alignment.offset_bytes > least_bytes),
        )
        .collect()
}

/// A buffer of one unit at an address that is a multiple of the alignment, and of nothing larger.
fn probe_buffer(alignment: Alignment, fill: u8) -> io::Result<BufferMut> {
    let Alignment {
        memory_bytes,
        offset_bytes,
    } = alignment;
    let mut buffer = BufferMut::zeroed(memory_bytes + offset_bytes, memory_bytes * 2)
        .map_err(io::Error::other)?;
    let mut unit = buffer.split_off(memory_bytes);
    unit.fill(fill);
    Ok(unit)
}

fn try_write_and_read(file: &File, alignment: Alignment) -> io::Result<()> {
    const PATTERN: u8 = 0xA5;
    let source = probe_buffer(alignment, PATTERN)?;
    let mut target = probe_buffer(alignment, 0)?;
    let offset_bytes = alignment.offset_bytes as u64;
    let written = file.write_at(&source, offset_bytes)?;
    let read = file.read_at(&mut target, offset_bytes)?;
    if written != source.len() || read != target.len() || *target != *source {
        return Err(io::Error::other("the bytes read are not the bytes written"));
    }
    Ok(())
}

fn try_read(file: &File, alignment: Alignment) -> io::Result<()> {
    let mut target = probe_buffer(alignment, 0)?;
    file.read_at(&mut target, 0).map(drop)
}

fn accepts_misaligned_write(file: &File) -> bool {
    file.write_at(&[0xA5], 1).is_ok()
}

fn accepts_misaligned_read(file: &File) -> bool {
    file.read_at(&mut [0], 1).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_states_is_tried_first_and_larger_units_after_it() {
        let stated = Alignment {
            memory_bytes: 4,
            offset_bytes: 512,
        };
        let tried = candidates(Stated::Aligned(stated));
        assert_eq!(tried.first(), Some(&stated));
        assert_eq!(tried.len(), 3);
        assert_eq!(candidates(Stated::Unknown).len(), 3);
    }

    #[test]
    fn a_probe_buffer_is_aligned_to_its_unit_only() {
        for bytes in [4, 512, 4096] {
            let alignment = Alignment {
                memory_bytes: bytes,
                offset_bytes: 4096,
            };
            let buffer = probe_buffer(alignment, 1).unwrap();
            assert!(buffer.is_aligned_to(bytes) && !buffer.is_aligned_to(bytes * 2));
            assert_eq!(buffer.len(), 4096);
        }
    }

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        probe(&directory, &VolumeOptions::default()).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sample_is_read_where_nothing_can_be_written() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path()).unwrap();
        let options = VolumeOptions::default().with_read_only(true);
        let empty = probe(&directory, &options).unwrap();
        assert!(matches!(empty.mode, FileMode::Buffered { .. }));
        std::fs::write(root.path().join("sample"), vec![7; 8192]).unwrap();
        let sampled = probe(&directory, &options).unwrap();
        let written = probe(&directory, &VolumeOptions::default()).unwrap();
        assert_eq!(sampled.mode, written.mode);
        assert_eq!(sampled.alignment, written.alignment);
        assert!(sampled.read_only.is_some() && written.read_only.is_none());
    }
}
