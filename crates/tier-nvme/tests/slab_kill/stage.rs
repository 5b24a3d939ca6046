//! Where a commit is, written where it outlives the process: a volume that sees what the slab does to it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use core_view::BufferMut;
use core_view::contract::{Drive, Transfer};
use tier_nvme::{Alignment, FileName, NvmeError, Volume, VolumeFile, VolumeLock, VolumeReport};

/// What the slab was at when it was last heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// Between commits; payloads may be on their way.
    Idle,
    /// A record is being written.
    Record,
    /// It is being synced.
    Sync,
    /// It is synced, and nobody has been told.
    Publish,
    /// The tables are being written.
    Tables,
    /// A segment is being made.
    Segment,
}

pub(crate) const NAMES: [&str; 6] = ["idle", "record", "sync", "publish", "tables", "segment"];

/// The file that tells.
#[derive(Debug)]
pub(crate) struct Told {
    file: File,
    now: Mutex<Stage>,
}

impl Told {
    pub(crate) fn new(path: &Path) -> Arc<Self> {
        let file = File::create(path).unwrap();
        file.write_all_at(&[Stage::Idle as u8], 0).unwrap();
        let now = Mutex::new(Stage::Idle);
        Arc::new(Self { file, now })
    }

    fn enter(&self, stage: Stage) {
        self.leave_for(|_| Some(stage));
    }

    /// Somebody was told of a commit.
    pub(crate) fn acknowledged(&self) {
        self.leave_for(|now| (now == Stage::Publish).then_some(Stage::Idle));
    }

    fn leave_for(&self, next: impl FnOnce(Stage) -> Option<Stage>) {
        let mut now = self.now.lock().unwrap();
        if let Some(next) = next(*now)
            && next != *now
        {
            *now = next;
            self.file.write_all_at(&[next as u8], 0).unwrap();
        }
    }
}

/// The stage that the file was last told of.
pub(crate) fn read(path: &Path) -> usize {
    // The child empties the file before it writes it.
    let bytes = std::fs::read(path).unwrap();
    bytes.first().copied().unwrap_or(0).into()
}

/// A volume that tells what is done to it.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) inner: Arc<dyn Volume>,
    pub(crate) told: Arc<Told>,
}

fn is_segment(name: &FileName) -> bool {
    name.as_str().starts_with("BLOCKS-")
}

impl Watched {
    fn watch(&self, inner: Arc<dyn VolumeFile>) -> Arc<dyn VolumeFile> {
        let told = Arc::clone(&self.told);
        Arc::new(WatchedFile { inner, told })
    }
}

impl Volume for Watched {
    fn report(&self) -> VolumeReport {
        self.inner.report()
    }

    fn create(&self, name: &FileName, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        self.told.enter(match is_segment(name) {
            true => Stage::Segment,
            false => Stage::Tables,
        });
        Ok(self.watch(self.inner.create(name, len_bytes)?))
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        Ok(self.watch(self.inner.open(name)?))
    }

    fn rename(&self, source: &FileName, target: &FileName) -> Result<(), NvmeError> {
        self.inner.rename(source, target)
    }

    fn remove(&self, name: &FileName) -> Result<(), NvmeError> {
        self.inner.remove(name)
    }

    fn list(&self) -> Result<Vec<FileName>, NvmeError> {
        self.inner.list()
    }

    fn lock(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.inner.lock()
    }

    fn lock_shared(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.inner.lock_shared()
    }

    fn sync_directory(&self) -> Result<(), NvmeError> {
        self.inner.sync_directory()?;
        // A segment, or tables, are made for a commit that goes on.
        self.told.enter(Stage::Record);
        Ok(())
    }

    fn is_writable(&self) -> bool {
        self.inner.is_writable()
    }

    fn available_bytes(&self) -> Option<u64> {
        self.inner.available_bytes()
    }

    fn drive(&self) -> Option<Arc<dyn Drive>> {
        self.inner.drive()
    }

    fn unique_id(&self) -> [u8; 16] {
        self.inner.unique_id()
    }
}

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn VolumeFile>,
    told: Arc<Told>,
}

impl VolumeFile for WatchedFile {
    fn name(&self) -> &FileName {
        self.inner.name()
    }

    fn alignment(&self) -> Alignment {
        self.inner.alignment()
    }

    fn len_bytes(&self) -> Result<u64, NvmeError> {
        self.inner.len_bytes()
    }

    fn read(&self, offset_bytes: u64, target: BufferMut) -> Transfer<BufferMut> {
        self.inner.read(offset_bytes, target)
    }

    fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut> {
        let is_segment = is_segment(self.name());
        self.told.leave_for(|now| match (is_segment, now) {
            (true, Stage::Segment) => None,
            (true, _) => Some(Stage::Record),
            (false, _) => Some(Stage::Tables),
        });
        self.inner.write(offset_bytes, source)
    }

    /// Payloads come this way, from every caller by itself.
    fn write_vectored(
        &self,
        offset_bytes: u64,
        sources: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>> {
        self.inner.write_vectored(offset_bytes, sources)
    }

    fn sync(&self) -> Transfer<()> {
        let told = Arc::clone(&self.told);
        told.leave_for(|now| (now == Stage::Record).then_some(Stage::Sync));
        self.inner.sync().map(move |()| {
            told.leave_for(|now| (now == Stage::Sync).then_some(Stage::Publish));
        })
    }
}
