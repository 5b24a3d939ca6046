//! The simulated disk as a volume.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_view::contract::Drive;

use super::disk::{DirectoryChange, Disk, LockState};
use super::file::SimFile;
use super::flight::{Attempted, Flying};
use super::{ALIGNMENT, FaultCounts, FaultRates, Latency, Random, SimClock, Survival};
use crate::{FileMode, FileName, NvmeError, Volume, VolumeFile, VolumeLock, VolumeReport};

/// A simulated disk with one directory; clones are the same disk.
#[derive(Clone)]
pub struct SimVolume {
    shared: Arc<Shared>,
    /// Power cycle in which this handle is good; after a crash, old handles reach nothing.
    cycle: u64,
}

struct Shared {
    seed: u64,
    state: Mutex<State>,
    /// Something was submitted or has completed.
    changed: Condvar,
}

pub(super) struct State {
    pub(super) disk: Disk,
    pub(super) now: Duration,
    latency: Option<Latency>,
    /// What is in flight, by the time at which the next call of it is made.
    flying: BTreeMap<(Duration, u64), Flying>,
    next_number: u64,
}

impl State {
    /// Draws how long an operation takes.
    fn draw(&mut self) -> Duration {
        let Some(Latency { min, max }) = self.latency else {
            return Duration::ZERO;
        };
        let spread = max.saturating_sub(min).as_nanos();
        let spread = u64::try_from(spread).unwrap_or(u64::MAX);
        min + Duration::from_nanos(self.disk.random.below(spread))
    }

    /// Takes an operation in, to be attempted after some time.
    fn launch(&mut self, mut flying: Flying, after: Duration) {
        flying.due = self.now.saturating_add(after).saturating_add(self.draw());
        self.flying.insert((flying.due, flying.number), flying);
    }

    /// Takes out what is in flight on handles that reach nothing any more.
    fn cut_off(&mut self) -> Vec<Flying> {
        let cut_off: Vec<_> = std::mem::take(&mut self.flying).into_values().collect();
        self.disk.counts.cut_off += cut_off.len() as u64;
        cut_off
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next operation that is due by `until` go on; `false` if there is none.
    fn step_until(&self, until: Duration) -> bool {
        let mut state = self.state();
        let first = state.flying.first_key_value().map(|(&key, _)| key);
        let Some(mut flying) = first
            .filter(|(due, _)| *due <= until)
            .and_then(|key| state.flying.remove(&key))
        else {
            return false;
        };
        state.now = state.now.max(flying.due);
        match flying.attempt(&mut state.disk) {
            Attempted::Later(after) => state.launch(flying, after),
            Attempted::Over(outcome) => {
                let earlier = |other: &Flying| other.number < flying.number;
                let reordered = state.flying.values().any(earlier);
                state.disk.counts.reordered += u64::from(reordered);
                drop(state);
                flying.finish(outcome);
            }
        }
        self.changed.notify_all();
        true
    }
}

impl Drive for Shared {
    fn drive(&self, timeout: Option<Duration>) {
        if self.step_until(Duration::MAX) {
            return;
        }
        let state = self.state();
        if !state.flying.is_empty() {
            return;
        }
        // Another thread may submit something, or is just completing what was in flight.
        match timeout {
            Some(timeout) => drop(self.changed.wait_timeout(state, timeout)),
            None => drop(self.changed.wait(state)),
        }
    }
}

/// Fails what lost its volume, once no lock is held.
fn fail_all(cut_off: Vec<Flying>) {
    for flying in cut_off {
        let error = flying.error(io::Error::other("the power of the simulated volume is off"));
        flying.finish(Err(error));
    }
}

impl SimVolume {
    /// An empty disk without a bound, whose choices follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self::of_disk(seed, Disk::new(seed))
    }

    fn of_disk(seed: u64, disk: Disk) -> Self {
        let cycle = disk.cycle;
        let state = State {
            disk,
            now: Duration::ZERO,
            latency: None,
            flying: BTreeMap::new(),
            next_number: 0,
        };
        let shared = Shared {
            seed,
            state: Mutex::new(state),
            changed: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            cycle,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    /// The seed that all choices of this volume follow from.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The time of this volume.
    pub fn clock(&self) -> SimClock {
        SimClock {
            volume: self.clone(),
        }
    }

    /// Sets how long operations take from now on. With `None`, which is how a volume begins, they are
    /// done when they are submitted. Otherwise they are done when the volume is stepped, by a call
    /// below or by a thread that waits for one of its transfers, in the order in which they are due.
    pub fn set_latency(&self, latency: Option<Latency>) {
        self.state().latency = latency;
    }

    /// Number of operations that were submitted and are not done.
    pub fn in_flight(&self) -> usize {
        self.state().flying.len()
    }

    /// Lets the operation that is due next go on, and moves the clock to that moment; `false` if nothing
    /// is in flight. What completes is handed out on this thread.
    pub fn step(&self) -> bool {
        self.step_until(Duration::MAX)
    }

    pub(super) fn step_until(&self, until: Duration) -> bool {
        self.shared.step_until(until)
    }

    /// Steps until nothing is in flight.
    pub fn settle_all(&self) {
        while self.step() {}
    }

    /// Carries an operation out, now or when it is due.
    pub(super) fn submit(&self, mut flying: Flying) {
        let mut state = self.state();
        if let Err(error) = state.disk.check_power(self.cycle) {
            drop(state);
            let error = flying.error(error);
            return flying.finish(Err(error));
        }
        flying.number = state.next_number;
        state.next_number += 1;
        if state.latency.is_some() {
            state.launch(flying, Duration::ZERO);
            drop(state);
            self.shared.changed.notify_all();
            return;
        }
        let outcome = loop {
            match flying.attempt(&mut state.disk) {
                Attempted::Later(after) => state.now += after,
                Attempted::Over(outcome) => break outcome,
            }
        };
        drop(state);
        flying.finish(outcome);
    }

    pub(super) fn cycle(&self) -> u64 {
        self.cycle
    }

    pub(super) fn as_drive(&self) -> Arc<dyn Drive> {
        Arc::clone(&self.shared) as _
    }

    /// The volume for a store to run on, good until the next crash.
    pub fn handle(&self) -> Arc<dyn Volume> {
        let cycle = self.state().disk.cycle;
        Arc::new(Self {
            shared: Arc::clone(&self.shared),
            cycle,
        })
    }

    /// Bounds the sizes of all files together, in bytes.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.state().disk.capacity_bytes = capacity_bytes;
    }

    /// Sets how often operations fail from now on.
    pub fn set_faults(&self, rates: FaultRates) {
        self.state().disk.rates = rates;
    }

    /// Lets the power fail during the operation that follows `operations` more changes of the disk
    /// (writes, syncs, creations, renames, removals): it fails, half done, and so does everything after
    /// it until [`crash`](SimVolume::crash).
    pub fn fail_power_after(&self, operations: u64) {
        let disk = &mut self.state().disk;
        disk.power_fails_at = Some(disk.operations + operations);
    }

    /// Whether the power is on: no failure that was asked for has come, or a crash turned it on again.
    pub fn has_power(&self) -> bool {
        self.state().disk.has_power()
    }

    /// Number of changes of the disk so far.
    pub fn operations(&self) -> u64 {
        self.state().disk.operations
    }

    /// Cuts the power and turns it on again: what was not synced is kept or lost by the seed, locks are
    /// gone, and handles from before reach nothing any more.
    pub fn crash(&self) {
        let survival = self.state().disk.choose_survival();
        self.crash_keeping(survival);
    }

    /// As [`crash`](SimVolume::crash), with the class of survivors given.
    pub fn crash_keeping(&self, survival: Survival) {
        let mut state = self.state();
        let cut_off = state.cut_off();
        for unwritten in cut_off.iter().filter_map(Flying::unwritten) {
            state.disk.cut_off(unwritten);
        }
        state.disk.crash(survival);
        drop(state);
        fail_all(cut_off);
    }

    /// Kills the process that has the volume open: its lock is given back, and its handles reach nothing
    /// any more, so that a store dropped after this does nothing. What was written stays written, and
    /// what was on its way arrives at some time before [`settle`](Volume::settle) returns for its file.
    pub fn kill(&self) {
        let mut state = self.state();
        let cut_off = state.cut_off();
        for unwritten in cut_off.iter().filter_map(Flying::unwritten) {
            state.disk.outlive(unwritten);
        }
        state.disk.kill();
        drop(state);
        fail_all(cut_off);
    }

    /// What happened so far.
    pub fn counts(&self) -> FaultCounts {
        self.state().disk.counts
    }

    /// Names and sizes in bytes of the files.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.state().disk.files()
    }

    /// Flips one bit of a file, where the file is that long; tells whether it did.
    pub fn flip_bit(&self, name: &str, bit_index: u64) -> bool {
        self.state().disk.flip_bit(name, bit_index)
    }

    /// The bytes of a file as they are read now.
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        self.state().disk.bytes_of(name).map(<[u8]>::to_vec)
    }

    /// Puts bytes into a file for good, behind everybody's back, where the file is that long; tells
    /// whether it did.
    pub fn overwrite(&self, name: &str, offset_bytes: u64, bytes: &[u8]) -> bool {
        self.state().disk.overwrite(name, offset_bytes, bytes)
    }

    /// A copy of the disk as it is, without what is in flight, unlocked, running on by a seed of its own and with no power failure
    /// ahead.
    pub fn fork(&self, seed: u64) -> Self {
        let mut disk = self.state().disk.clone();
        disk.random = Random::new(seed);
        disk.lock = LockState::Free;
        disk.power_on();
        Self::of_disk(seed, disk)
    }

    /// Runs `change` on the disk if the power is on, after counting it as one operation.
    fn change<T>(
        &self,
        operation: &'static str,
        path: &str,
        change: impl FnOnce(&mut Disk) -> Result<T, NvmeError>,
    ) -> Result<T, NvmeError> {
        let mut state = self.state();
        let taken = state.draw();
        state.now += taken;
        state
            .disk
            .begin_change(self.cycle)
            .map_err(|error| NvmeError::from_io(operation, path, 0, error))?;
        change(&mut state.disk)
    }

    pub(super) fn look<T>(
        &self,
        operation: &'static str,
        path: &str,
        look: impl FnOnce(&mut Disk) -> T,
    ) -> Result<T, NvmeError> {
        let mut state = self.state();
        state
            .disk
            .check_power(self.cycle)
            .map_err(|error| NvmeError::from_io(operation, path, 0, error))?;
        Ok(look(&mut state.disk))
    }

    fn take_lock(
        &self,
        take: impl FnOnce(LockState) -> Option<LockState>,
    ) -> Result<Box<dyn VolumeLock>, NvmeError> {
        let taken = self.look("lock", "directory", |disk| {
            let after = take(disk.lock);
            disk.lock = after.unwrap_or(disk.lock);
            after
        })?;
        if taken.is_some() {
            return Ok(Box::new(SimLock(self.clone())));
        }
        Err(NvmeError::Locked {
            path: "simulated volume".to_owned(),
            holder_pid: None,
        })
    }

    fn file(&self, name: &FileName, inode: u64) -> Arc<dyn VolumeFile> {
        Arc::new(SimFile::new(self.clone(), name.clone(), inode))
    }
}

impl fmt::Debug for SimVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimVolume")
            .field("seed", &self.shared.seed)
            .field("cycle", &self.cycle)
            .finish_non_exhaustive()
    }
}

fn not_found(name: &FileName) -> NvmeError {
    NvmeError::FileNotFound {
        path: name.to_string(),
    }
}

impl Volume for SimVolume {
    fn report(&self) -> VolumeReport {
        VolumeReport {
            location: "simulated volume".to_owned(),
            engine: "simulated",
            engine_reason: None,
            mode: FileMode::Direct,
            alignment: ALIGNMENT,
        }
    }

    fn create(&self, name: &FileName, len_bytes: u64) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let inode = self.change("create", name.as_str(), |disk| {
            if disk.lookup(name.as_str()).is_some() {
                return Err(NvmeError::FileExists {
                    path: name.to_string(),
                });
            }
            if !disk.reserve(len_bytes) {
                let error = io::Error::from(io::ErrorKind::StorageFull);
                return Err(NvmeError::from_io(
                    "create",
                    name.as_str(),
                    len_bytes,
                    error,
                ));
            }
            Ok(disk.create(name.as_str(), len_bytes))
        })?;
        Ok(self.file(name, inode))
    }

    fn open(&self, name: &FileName) -> Result<Arc<dyn VolumeFile>, NvmeError> {
        let inode = self.look("open", name.as_str(), |disk| disk.lookup(name.as_str()))?;
        inode
            .map(|inode| self.file(name, inode))
            .ok_or_else(|| not_found(name))
    }

    fn rename(&self, source: &FileName, target: &FileName) -> Result<(), NvmeError> {
        self.change("rename", source.as_str(), |disk| {
            let inode = disk
                .lookup(source.as_str())
                .ok_or_else(|| not_found(source))?;
            disk.change_directory(DirectoryChange::Rename {
                source: source.to_string(),
                target: target.to_string(),
                inode,
            });
            Ok(())
        })
    }

    fn remove(&self, name: &FileName) -> Result<(), NvmeError> {
        self.change("remove", name.as_str(), |disk| {
            disk.lookup(name.as_str()).ok_or_else(|| not_found(name))?;
            disk.change_directory(DirectoryChange::Remove {
                name: name.to_string(),
            });
            Ok(())
        })
    }

    fn list(&self) -> Result<Vec<FileName>, NvmeError> {
        let files = self.look("list", "directory", |disk| disk.files())?;
        files
            .into_iter()
            .map(|(name, _)| FileName::new(name))
            .collect()
    }

    fn lock(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.take_lock(|state| match state {
            LockState::Free => Some(LockState::Alone),
            LockState::Alone | LockState::Readers(_) => None,
        })
    }

    fn lock_shared(&self) -> Result<Box<dyn VolumeLock>, NvmeError> {
        self.take_lock(|state| match state {
            LockState::Free => Some(LockState::Readers(1)),
            LockState::Readers(count) => Some(LockState::Readers(count + 1)),
            LockState::Alone => None,
        })
    }

    fn sync_directory(&self) -> Result<(), NvmeError> {
        self.change("sync", "directory", |disk| {
            disk.sync_directory()
                .map_err(|error| NvmeError::from_io("sync", "directory", 0, error))
        })
    }

    fn is_writable(&self) -> bool {
        true
    }

    fn drive(&self) -> Option<Arc<dyn Drive>> {
        Some(self.as_drive())
    }

    fn settle(&self, name: &FileName) -> Result<(), NvmeError> {
        self.look("settle", name.as_str(), |disk| {
            if let Some(inode) = disk.lookup(name.as_str()) {
                disk.settle(inode);
            }
        })
    }

    fn runs_threads(&self) -> bool {
        false
    }

    fn unique_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.state().disk.random.fill(&mut id);
        id
    }

    fn available_bytes(&self) -> Option<u64> {
        let disk = &self.state().disk;
        Some(disk.capacity_bytes.saturating_sub(disk.used_bytes()))
    }
}

#[derive(Debug)]
struct SimLock(SimVolume);

impl VolumeLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let disk = &mut self.0.state().disk;
        if disk.cycle == self.0.cycle {
            disk.lock = match disk.lock {
                LockState::Readers(count @ 2..) => LockState::Readers(count - 1),
                _ => LockState::Free,
            };
        }
    }
}
