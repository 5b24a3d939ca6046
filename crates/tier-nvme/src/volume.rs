//! The contract through which all durable input and output goes.
//!
//! A volume is one flat directory. The real one is a directory of a file system; the simulated one
//! loses, tears and reorders what was not synced, by a seed. What the stores promise, they promise on
//! either.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use core_view::contract::{Drive, Failure, Transfer};
use core_view::{BufferMut, TensorStorage};

use crate::{NvmeError, ReadQueue};

/// The name of a file within a volume: 1 to 100 of `a-z A-Z 0-9 . _ -`, not beginning with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// Most characters of a name.
    pub const LEN_MAX: usize = 100;

    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] for a name of other characters or length.
    pub fn new(name: impl Into<String>) -> Result<Self, NvmeError> {
        let name = name.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty()
            || name.len() > Self::LEN_MAX
            || name.starts_with('.')
            || !name.bytes().all(allowed)
        {
            return Err(NvmeError::Invalid {
                field: "file name",
                reason: format!(
                    "{name:?} is not 1 to 100 of a-z A-Z 0-9 . _ -, or begins with a dot"
                ),
            });
        }
        Ok(Self(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What reads and writes of a file must be multiples of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment {
    /// Addresses in memory, in bytes.
    pub memory_bytes: usize,
    /// Offsets and lengths, in bytes.
    pub offset_bytes: usize,
}

/// How reads and writes reach the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileMode {
    /// Past the page cache.
    Direct,
    /// Through the page cache, for this reason.
    Buffered {
        /// Why not directly.
        reason: String,
    },
}

/// How a volume does its work, for the user to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeReport {
    /// Where it is.
    pub location: String,
    /// The engine ("io_uring", "thread pool", "simulated").
    pub engine: &'static str,
    /// Why a better engine is not used, where one exists.
    pub engine_reason: Option<String>,
    /// How reads and writes reach the device.
    pub mode: FileMode,
    /// What they must be aligned to.
    pub alignment: Alignment,
}

/// Holds a volume for one user, or for those who read, until it is dropped.
pub trait VolumeLock: fmt::Debug + Send + Sync + 'static {}

/// A flat directory of files on which stores keep their data.
///
/// What was created, renamed or removed is certain to be so after a power loss only once
/// [`sync_directory`](Volume::sync_directory) returned; what was written, once the file's
/// [`sync`](VolumeFile::sync) did.
pub trait Volume: fmt::Debug + Send + Sync + 'static {
    /// How the volume does its work.
    fn report(&self) -> VolumeReport;

    /// Creates a file of `len_bytes`, all zero, with its space reserved.
    ///
    /// # Errors
    /// [`NvmeError::FileExists`]; [`NvmeError::NoSpace`], with nothing left behind;
    /// [`NvmeError::ReadOnly`]; [`NvmeError::Io`].
    fn create(&self, name: &FileName, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError>;

    /// Creates a file of `len_bytes`, all zero, with its space reserved, that has no name: it is gone when
    /// nobody has it open any more.
    ///
    /// # Errors
    /// As [`create`](Volume::create).
    fn create_unnamed(&self, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        create_and_remove(self, len_bytes)
    }

    /// Opens a file for reading and, if the volume is writable, writing.
    ///
    /// # Errors
    /// [`NvmeError::FileNotFound`], [`NvmeError::Io`].
    fn open(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError>;

    /// Renames a file, replacing the one of the new name.
    ///
    /// # Errors
    /// [`NvmeError::FileNotFound`], [`NvmeError::ReadOnly`], [`NvmeError::Io`].
    fn rename(&self, source: &FileName, target: &FileName) -> Result<(), NvmeError>;

    /// Removes a file. Those who have it open may go on reading.
    ///
    /// # Errors
    /// [`NvmeError::FileNotFound`], [`NvmeError::ReadOnly`], [`NvmeError::Io`].
    fn remove(&self, name: &FileName) -> Result<(), NvmeError>;

    /// The names of all files, sorted; other things in the directory are left out.
    ///
    /// # Errors
    /// [`NvmeError::Io`].
    fn list(&self) -> Result<Vec<FileName>, NvmeError>;

    /// Takes the volume for this user alone, against other processes and other handles in this one.
    ///
    /// # Errors
    /// [`NvmeError::Locked`] if it is taken; [`NvmeError::ReadOnly`], [`NvmeError::Io`].
    fn lock(&self) -> Result<Box<dyn VolumeLock>, NvmeError>;

    /// Takes the volume for reading, beside others who do, against who wants it for himself alone.
    ///
    /// # Errors
    /// As [`Volume::lock`].
    fn lock_shared(&self) -> Result<Box<dyn VolumeLock>, NvmeError>;

    /// Makes known, until it is dropped, that files are read beside somebody who has the volume for himself
    /// alone and writes. `None` where that can't be made known.
    fn lock_reading(&self) -> Option<Box<dyn VolumeLock>> {
        None
    }

    /// Lets nobody begin to read ([`lock_reading`](Volume::lock_reading)) until it is dropped; `None` if
    /// somebody does. What is renamed meanwhile can be written by who has the volume for himself alone, and
    /// nobody finds other bytes than he looks for.
    fn keep_readers_out(&self) -> Option<Box<dyn VolumeLock>> {
        #[derive(Debug)]
        struct NobodyElse;
        impl VolumeLock for NobodyElse {}
        Some(Box::new(NobodyElse))
    }

    /// Makes creations, renames and removals durable.
    ///
    /// # Errors
    /// [`NvmeError::Io`]; the caller must treat the state of the directory as unknown then.
    fn sync_directory(&self) -> Result<(), NvmeError>;

    /// Whether files can be created and written.
    fn is_writable(&self) -> bool;

    /// Bytes that are still free, where that is known.
    fn available_bytes(&self) -> Option<u64>;

    /// What a thread that waits for operations of this volume pushes forward, where the volume has no
    /// threads of its own. Its transfers have it already; whoever makes a transfer that is completed by
    /// theirs passes it on.
    fn drive(&self) -> Option<Arc<dyn Drive>> {
        None
    }

    /// Waits until nobody writes the file any more.
    ///
    /// The lock of a killed process is given back at once, but an operation that it had in flight may
    /// still reach the device, on top of what its successor writes there. Recovery asks before it reads.
    ///
    /// # Errors
    /// [`NvmeError::Locked`] if that takes many seconds; [`NvmeError::Io`].
    fn settle(&self, name: &FileName) -> Result<(), NvmeError> {
        let _ = name;
        Ok(())
    }

    /// Whether stores may work on it from threads of their own. On a simulated volume they may not: what
    /// happens has to follow from the seed.
    fn runs_threads(&self) -> bool {
        true
    }

    /// A number that no other store has; the simulated volume makes it from its seed.
    fn unique_id(&self) -> [u8; 16] {
        // Each `RandomState` has keys of its own from the system's source of randomness.
        let half = || RandomState::new().hash_one(std::process::id());
        (u128::from(half()) << 64 | u128::from(half())).to_le_bytes()
    }
}

/// A file of a volume.
///
/// Reads and writes take their buffers by value and give them back; the file stays open until the
/// last of them is done, whatever is dropped. Offsets, lengths and addresses must be multiples of the
/// [`alignment`](VolumeFile::alignment), else the operation fails as
/// [`ErrorKind::InvalidInput`](core_view::contract::ErrorKind::InvalidInput).
pub trait VolumeFile: fmt::Debug + Send + Sync + 'static {
    /// The file's name.
    fn name(&self) -> &FileName;

    /// What reads and writes must be aligned to.
    fn alignment(&self) -> Alignment;

    /// Length in bytes.
    ///
    /// # Errors
    /// [`NvmeError::Io`].
    fn len_bytes(&self) -> Result<u64, NvmeError>;

    /// Fills `target` from `offset_bytes`. A file that ends before is an
    /// [`ErrorKind::Io`](core_view::contract::ErrorKind::Io) failure.
    fn read(&self, offset_bytes: u64, target: BufferMut) -> Transfer<BufferMut>;

    /// Writes all of `source` at `offset_bytes`.
    fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut>;

    /// Writes the buffers one after the other from `offset_bytes`, and gives them back in order.
    fn write_vectored(
        &self,
        offset_bytes: u64,
        sources: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>>;

    /// Makes all writes that are done durable, with the length of the file.
    ///
    /// A failure leaves it unknown which of them are; it must not be tried again.
    fn sync(&self) -> Transfer<()>;

    /// As [`read`](VolumeFile::read), done on the calling thread where the volume can.
    ///
    /// # Errors
    /// As the transfer's.
    fn read_blocking(&self, offset_bytes: u64, target: BufferMut) -> Result<BufferMut, Failure> {
        self.read(offset_bytes, target).wait()
    }

    /// As [`read`](VolumeFile::read), collected through `queue`.
    fn read_queued(&self, queue: &mut ReadQueue, tag: u64, offset_bytes: u64, target: BufferMut) {
        queue.push_transfer(tag, self.read(offset_bytes, target));
    }

    /// The bytes from `offset_bytes` on, of any alignment, to share and to read: a map of the file where
    /// the volume has one, else a copy.
    ///
    /// # Safety
    /// Nobody may write to these bytes, or make the file shorter, while any view of them lives: views
    /// hand out `&[u8]`, which must not change. Removing the file is fine.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] if the file does not have these bytes; [`NvmeError::Io`] and
    /// [`NvmeError::Transfer`] if they can't be had.
    unsafe fn map(&self, offset_bytes: u64, len_bytes: usize) -> Result<TensorStorage, NvmeError> {
        check_map_range(self, offset_bytes, len_bytes)?;
        copy_range(self, offset_bytes, len_bytes)
    }
}

/// A file without a name, where the file system has none such: it loses its name at once. If the
/// process ends in between, a file is left whose name begins with `UNNAMED-`.
pub(crate) fn create_and_remove(
    volume: &(impl Volume + ?Sized),
    len_bytes: u64,
) -> Result<Arc<dyn VolumeFile>, NvmeError> {
    let id = u128::from_le_bytes(volume.unique_id());
    let name = FileName::new(format!("UNNAMED-{id:032x}"))?;
    let file = volume.create(&name, len_bytes)?;
    volume.remove(&name)?;
    Ok(file)
}

/// Refuses a range that the file does not have.
pub(crate) fn check_map_range(
    file: &(impl VolumeFile + ?Sized),
    offset_bytes: u64,
    len_bytes: usize,
) -> Result<(), NvmeError> {
    let end = offset_bytes.checked_add(len_bytes as u64);
    let file_bytes = file.len_bytes()?;
    if end.is_none_or(|end| end > file_bytes) {
        return Err(NvmeError::Invalid {
            field: "map",
            reason: format!(
                "{len_bytes} bytes at offset {offset_bytes} are not within the {file_bytes} bytes of {}",
                file.name()
            ),
        });
    }
    Ok(())
}

/// Reads what covers a range, and gives the range of it.
fn copy_range(
    file: &(impl VolumeFile + ?Sized),
    offset_bytes: u64,
    len_bytes: usize,
) -> Result<TensorStorage, NvmeError> {
    let invalid = |error: &dyn fmt::Display| NvmeError::Invalid {
        field: "map",
        reason: error.to_string(),
    };
    if len_bytes == 0 {
        return Ok(TensorStorage::from(BufferMut::from_vec(Vec::new())));
    }
    let Alignment {
        memory_bytes,
        offset_bytes: unit,
    } = file.alignment();
    let skipped = (offset_bytes % unit as u64) as usize;
    let covered = (skipped + len_bytes).next_multiple_of(unit);
    let target = BufferMut::zeroed(covered, memory_bytes).map_err(|error| invalid(&error))?;
    let target = file.read_blocking(offset_bytes - skipped as u64, target)?;
    TensorStorage::from(target)
        .view(skipped, len_bytes)
        .map_err(|error| invalid(&error))
}
