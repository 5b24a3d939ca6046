//! An engine that has no room for an operation at first, or never.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use core_view::BufferMut;
use core_view::contract::{ContractError, ErrorKind, Failure, Transfer};
use tier_nvme::{
    Alignment, FileName, Lsn, NvmeError, Volume, VolumeFile, VolumeLock, VolumeReport, Wal,
};

use super::{config, payloads, volume};

/// How many writes and syncs are refused next.
#[derive(Debug, Default)]
struct Refusals {
    writes: AtomicU64,
    syncs: AtomicU64,
    /// How many of the writes come back changed.
    scribbles: AtomicU64,
}

#[derive(Debug)]
struct Pressed {
    volume: Arc<dyn Volume>,
    refusals: Arc<Refusals>,
}

#[derive(Debug)]
struct PressedFile {
    file: Arc<dyn VolumeFile>,
    refusals: Arc<Refusals>,
}

fn takes_one(counter: &AtomicU64) -> bool {
    let one_less = |count: u64| count.checked_sub(1);
    counter
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
        .is_ok()
}

fn busy() -> ContractError {
    ContractError::new(ErrorKind::Busy, "test").detail("no room")
}

impl Pressed {
    fn pressed(&self, file: Arc<dyn VolumeFile>) -> Arc<dyn VolumeFile> {
        let refusals = Arc::clone(&self.refusals);
        Arc::new(PressedFile { file, refusals })
    }
}

impl Volume for Pressed {
    fn report(&self) -> VolumeReport {
        self.volume.report()
    }
    fn create(&self, name: &FileName, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        Ok(self.pressed(self.volume.create(name, len_bytes)?))
    }
    fn open(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        Ok(self.pressed(self.volume.open(name)?))
    }
    fn rename(&self, source: &FileName, target: &FileName) -> Result<(), NvmeError> {
        self.volume.rename(source, target)
    }
    fn remove(&self, name: &FileName) -> Result<(), NvmeError> {
        self.volume.remove(name)
    }
    fn list(&self) -> Result<Vec<FileName>, NvmeError> {
        self.volume.list()
    }
    fn lock(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.volume.lock()
    }
    fn lock_shared(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.volume.lock_shared()
    }
    fn sync_directory(&self) -> Result<(), NvmeError> {
        self.volume.sync_directory()
    }
    fn is_writable(&self) -> bool {
        self.volume.is_writable()
    }
    fn available_bytes(&self) -> Option<u64> {
        self.volume.available_bytes()
    }
}

impl VolumeFile for PressedFile {
    fn name(&self) -> &FileName {
        self.file.name()
    }
    fn alignment(&self) -> Alignment {
        self.file.alignment()
    }
    fn len_bytes(&self) -> Result<u64, NvmeError> {
        self.file.len_bytes()
    }
    fn read(&self, offset_bytes: u64, target: BufferMut) -> Transfer<BufferMut> {
        self.file.read(offset_bytes, target)
    }
    fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut> {
        self.file.write(offset_bytes, source)
    }
    fn write_vectored(
        &self,
        offset_bytes: u64,
        mut sources: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>> {
        if !takes_one(&self.refusals.writes) {
            return self.file.write_vectored(offset_bytes, sources);
        }
        if takes_one(&self.refusals.scribbles)
            && let Some(last) = sources.last_mut()
        {
            last[100] ^= 1;
        }
        Transfer::ready(Err(Failure::new(busy(), sources)))
    }
    fn sync(&self) -> Transfer<()> {
        if takes_one(&self.refusals.syncs) {
            return Transfer::ready(Err(busy().into()));
        }
        self.file.sync()
    }
}

fn pressed(directory: &tempfile::TempDir) -> Result<(Wal, Arc<Refusals>), NvmeError> {
    let refusals = Arc::<Refusals>::default();
    let volume = Arc::new(Pressed {
        volume: volume(directory),
        refusals: Arc::clone(&refusals),
    });
    // Filling a file ahead of need would take some of the refusals.
    Ok((Wal::open(volume, config().with_prefill(false))?, refusals))
}

#[test]
fn what_the_engine_had_no_room_for_is_tried_again() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let (wal, refusals) = pressed(&directory)?;
    let mut expected = Vec::new();
    for number in 0..20_u8 {
        expected.push(vec![number; 20_000]);
        refusals.writes.store(1, Ordering::Release);
        wal.append(&[number; 20_000])?;
        expected.push(vec![number; 10]);
        refusals.syncs.store(1, Ordering::Release);
        wal.append(&[number; 10])?;
    }
    let stats = wal.stats();
    assert!(stats.retries >= 20 && stats.groups == 40, "{stats:?}");
    assert!(stats.files > 3 && stats.buffer_bytes == 0, "{stats:?}");
    wal.close()?;
    drop(wal);
    let wal = Wal::open(volume(&directory), config())?;
    assert!(payloads(&wal, Lsn::FIRST)? == expected);
    Ok(())
}

#[test]
fn what_is_refused_again_or_comes_back_changed_ends_the_log() -> Result<(), Box<dyn Error>> {
    for (writes, syncs, scribbles) in [(2, 0, 0), (0, 2, 0), (1, 0, 1)] {
        let directory = tempfile::tempdir()?;
        let (wal, refusals) = pressed(&directory)?;
        wal.append(b"kept")?;
        refusals.scribbles.store(scribbles, Ordering::Release);
        refusals.writes.store(writes, Ordering::Release);
        refusals.syncs.store(syncs, Ordering::Release);
        let error = wal.append(&[7; 3000]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        let error = wal.append(b"refused").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        assert_eq!(wal.close().unwrap_err().kind(), ErrorKind::Poisoned);
        drop(wal);
        let wal = Wal::open(volume(&directory), config())?;
        assert_eq!(payloads(&wal, Lsn::FIRST)?[0], b"kept");
    }
    Ok(())
}
