//! A volume whose n-th operation panics, where it is asked for or where its outcome is waited for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::{Drive, Transfer};
use tier_nvme::{Alignment, FileName, NvmeError, Volume, VolumeFile, VolumeLock, VolumeReport};

/// Where the chosen operation panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// In the call that starts it.
    Start,
    /// In the thread that waits for it, while it pushes it forward.
    Wait,
}

/// Counts operations, and panics at one of them.
#[derive(Debug)]
struct Fuse {
    left: AtomicU64,
    moment: Moment,
    /// Set where the next push panics.
    lit: AtomicBool,
    blown: AtomicBool,
}

impl Fuse {
    fn blow(&self) -> ! {
        self.blown.store(true, Ordering::SeqCst);
        panic!("the volume panics on purpose");
    }

    fn burn(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        match self.moment {
            Moment::Start => self.blow(),
            Moment::Wait => self.lit.store(true, Ordering::SeqCst),
        }
    }
}

/// Pushes the volume inside, and panics where the fuse is lit.
struct Push {
    inner: Arc<dyn Drive>,
    fuse: Arc<Fuse>,
}

impl Drive for Push {
    fn drive(&self, timeout: Option<Duration>) {
        if self.fuse.lit.swap(false, Ordering::SeqCst) {
            self.fuse.blow();
        }
        self.inner.drive(timeout);
    }
}

/// A volume around another one.
#[derive(Debug, Clone)]
pub(crate) struct Panicking {
    inner: Arc<dyn Volume>,
    fuse: Arc<Fuse>,
}

impl Panicking {
    /// Panics at operation number `at`, from 1 on.
    pub(crate) fn new(inner: Arc<dyn Volume>, at: u64, moment: Moment) -> Self {
        let fuse = Arc::new(Fuse {
            left: AtomicU64::new(at),
            moment,
            lit: AtomicBool::new(false),
            blown: AtomicBool::new(false),
        });
        Self { inner, fuse }
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.fuse.blown.load(Ordering::SeqCst)
    }

    fn wrap(&self, file: Arc<dyn VolumeFile>) -> Arc<dyn VolumeFile> {
        let drive = self.inner.drive().map(|inner| -> Arc<dyn Drive> {
            let fuse = Arc::clone(&self.fuse);
            Arc::new(Push { inner, fuse })
        });
        Arc::new(PanickingFile {
            inner: file,
            drive,
            fuse: Arc::clone(&self.fuse),
        })
    }
}

impl Volume for Panicking {
    fn report(&self) -> VolumeReport {
        self.inner.report()
    }

    fn create(&self, name: &FileName, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        self.fuse.burn();
        Ok(self.wrap(self.inner.create(name, len_bytes)?))
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        self.fuse.burn();
        Ok(self.wrap(self.inner.open(name)?))
    }

    fn rename(&self, source: &FileName, target: &FileName) -> Result<(), NvmeError> {
        self.fuse.burn();
        self.inner.rename(source, target)
    }

    fn remove(&self, name: &FileName) -> Result<(), NvmeError> {
        self.fuse.burn();
        self.inner.remove(name)
    }

    fn list(&self) -> Result<Vec<FileName>, NvmeError> {
        self.fuse.burn();
        self.inner.list()
    }

    fn lock(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.inner.lock()
    }

    fn lock_shared(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.inner.lock_shared()
    }

    fn sync_directory(&self) -> Result<(), NvmeError> {
        self.fuse.burn();
        self.inner.sync_directory()
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

    fn runs_threads(&self) -> bool {
        self.inner.runs_threads()
    }

    fn unique_id(&self) -> [u8; 16] {
        self.inner.unique_id()
    }
}

struct PanickingFile {
    inner: Arc<dyn VolumeFile>,
    drive: Option<Arc<dyn Drive>>,
    fuse: Arc<Fuse>,
}

impl fmt::Debug for PanickingFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PanickingFile {
    /// A transfer that whoever waits for it pushes by way of the fuse.
    fn pushed<T: Send + 'static>(&self, transfer: Transfer<T>) -> Transfer<T> {
        let Some(drive) = &self.drive else {
            return transfer;
        };
        let (outer, completer) = Transfer::driven(Arc::clone(drive));
        transfer.forward(completer);
        outer
    }
}

impl VolumeFile for PanickingFile {
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
        self.fuse.burn();
        self.pushed(self.inner.read(offset_bytes, target))
    }

    fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut> {
        self.fuse.burn();
        self.pushed(self.inner.write(offset_bytes, source))
    }

    fn write_vectored(
        &self,
        offset_bytes: u64,
        sources: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>> {
        self.fuse.burn();
        self.pushed(self.inner.write_vectored(offset_bytes, sources))
    }

    fn sync(&self) -> Transfer<()> {
        self.fuse.burn();
        self.pushed(self.inner.sync())
    }
}
