//! A disk whose sync lasts until the test says so: what is appended meanwhile shares the next one.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use core_view::BufferMut;
use core_view::contract::Transfer;
use tier_nvme::{
    Alignment, FileName, NvmeError, Volume, VolumeFile, VolumeLock, VolumeReport, Wal, WalConfig,
};

use super::volume;

const WRITERS: u64 = 64;

/// Holds syncs back until it is opened.
#[derive(Debug, Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    /// Syncs that have begun.
    begun: AtomicU64,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(is_open, |is_open| !*is_open));
    }
}

#[derive(Debug)]
struct Slow {
    below: Arc<dyn Volume>,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct SlowFile {
    below: Arc<dyn VolumeFile>,
    gate: Arc<Gate>,
}

impl Slow {
    fn slow(&self, below: Arc<dyn VolumeFile>) -> Arc<dyn VolumeFile> {
        let gate = Arc::clone(&self.gate);
        Arc::new(SlowFile { below, gate })
    }
}

impl Volume for Slow {
    fn report(&self) -> VolumeReport {
        self.below.report()
    }
    fn create(&self, name: &FileName, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let created = self.below.create(name, len_bytes)?;
        Ok(self.slow(created))
    }
    fn open(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        Ok(self.slow(self.below.open(name)?))
    }
    fn rename(&self, source: &FileName, target: &FileName) -> Result<(), NvmeError> {
        self.below.rename(source, target)
    }
    fn remove(&self, name: &FileName) -> Result<(), NvmeError> {
        self.below.remove(name)
    }
    fn list(&self) -> Result<Vec<FileName>, NvmeError> {
        self.below.list()
    }
    fn lock(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.below.lock()
    }
    fn lock_shared(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.below.lock_shared()
    }
    fn sync_directory(&self) -> Result<(), NvmeError> {
        self.below.sync_directory()
    }
    fn is_writable(&self) -> bool {
        self.below.is_writable()
    }
    fn available_bytes(&self) -> Option<u64> {
        self.below.available_bytes()
    }
}

impl VolumeFile for SlowFile {
    fn name(&self) -> &FileName {
        self.below.name()
    }
    fn alignment(&self) -> Alignment {
        self.below.alignment()
    }
    fn len_bytes(&self) -> Result<u64, NvmeError> {
        self.below.len_bytes()
    }
    fn read(&self, offset_bytes: u64, target: BufferMut) -> Transfer<BufferMut> {
        self.below.read(offset_bytes, target)
    }
    fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut> {
        self.below.write(offset_bytes, source)
    }
    fn write_vectored(
        &self,
        offset_bytes: u64,
        sources: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>> {
        self.below.write_vectored(offset_bytes, sources)
    }
    fn sync(&self) -> Transfer<()> {
        let (transfer, completer) = Transfer::pair();
        let (gate, synced) = (Arc::clone(&self.gate), self.below.sync());
        gate.begun.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || {
            gate.pass();
            completer.complete(synced.wait());
        });
        transfer
    }
}

/// Waits for another thread to get somewhere.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}

#[test]
fn all_who_append_during_a_sync_share_the_next_ones() -> Result<(), Box<dyn Error>> {
    for outstanding in [1, 16] {
        let directory = tempfile::tempdir()?;
        let gate = Arc::new(Gate::default());
        gate.open();
        let slow = Slow {
            below: volume(&directory),
            gate: Arc::clone(&gate),
        };
        let wal = Wal::open(Arc::new(slow), WalConfig::default())?;
        *gate.is_open.lock().unwrap() = false;
        let begun_before = gate.begun.load(Ordering::SeqCst);
        let first = wal.append_async(&[1; 100]);
        until(|| gate.begun.load(Ordering::SeqCst) > begun_before);

        let appended = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| {
                    let transfers: Vec<_> = (0..outstanding)
                        .map(|_| wal.append_async(&[7; 100]))
                        .collect();
                    appended.fetch_add(outstanding, Ordering::SeqCst);
                    for transfer in transfers {
                        transfer.wait().unwrap();
                    }
                });
            }
            until(|| appended.load(Ordering::SeqCst) == WRITERS * outstanding);
            gate.open();
        });
        first.wait()?;
        // One for what was written by then, one for what was still being written.
        let shared = gate.begun.load(Ordering::SeqCst) - begun_before - 1;
        assert!((1..=2).contains(&shared), "{shared} syncs for all of them");
    }
    Ok(())
}
