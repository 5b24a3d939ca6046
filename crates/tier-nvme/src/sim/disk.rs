//! The state of a simulated disk, and what it does to reads, writes and syncs.

use std::collections::BTreeMap;
use std::io;

use super::inode::{Inode, PendingWrite};
use super::random::Random;
use super::{FaultCounts, FaultRates, SECTOR_BYTES, Survival};

/// A change of the directory that was not synced.
#[derive(Debug, Clone)]
pub(super) enum DirectoryChange {
    Create {
        name: String,
        inode: u64,
    },
    Rename {
        source: String,
        target: String,
        inode: u64,
    },
    Remove {
        name: String,
    },
}

impl DirectoryChange {
    fn apply(&self, entries: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create { name, inode } => {
                entries.insert(name.clone(), *inode);
            }
            Self::Rename {
                source,
                target,
                inode,
            } => {
                entries.remove(source);
                entries.insert(target.clone(), *inode);
            }
            Self::Remove { name } => {
                entries.remove(name);
            }
        }
    }
}

/// Who has the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockState {
    Free,
    Alone,
    Readers(u32),
}

#[derive(Debug, Clone)]
pub(super) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    entries: BTreeMap<String, u64>,
    durable_entries: BTreeMap<String, u64>,
    pending_changes: Vec<DirectoryChange>,
    pub(super) random: Random,
    pub(super) rates: FaultRates,
    pub(super) counts: FaultCounts,
    pub(super) capacity_bytes: u64,
    pub(super) operations: u64,
    pub(super) power_fails_at: Option<u64>,
    power_is_off: bool,
    pub(super) cycle: u64,
    pub(super) lock: LockState,
    /// Writes of a process that was killed which are still on their way: file, offset, bytes.
    stragglers: Vec<(u64, usize, Vec<u8>)>,
}

fn injected() -> io::Error {
    io::Error::other("injected by the simulated volume")
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            inodes: BTreeMap::new(),
            next_inode: 1,
            entries: BTreeMap::new(),
            durable_entries: BTreeMap::new(),
            pending_changes: Vec::new(),
            random: Random::new(seed),
            rates: FaultRates::default(),
            counts: FaultCounts::default(),
            capacity_bytes: u64::MAX,
            operations: 0,
            power_fails_at: None,
            power_is_off: false,
            cycle: 0,
            lock: LockState::Free,
            stragglers: Vec::new(),
        }
    }

    /// True in `per_mille` of a thousand cases; what never happens takes nothing from the seed.
    fn roll(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.random.chance(per_mille)
    }

    pub(super) fn has_power(&self) -> bool {
        !self.power_is_off
    }

    /// Fails if the power is off, or was off since the handle was made.
    pub(super) fn check_power(&self, cycle: u64) -> io::Result<()> {
        if self.power_is_off || cycle != self.cycle {
            return Err(io::Error::other("the power of the simulated volume is off"));
        }
        Ok(())
    }

    /// Counts an operation; the one at which the power fails fails, with no effect but what
    /// [`Disk::write`] leaves.
    pub(super) fn begin_change(&mut self, cycle: u64) -> io::Result<()> {
        self.check_power(cycle)?;
        self.operations += 1;
        if self.power_fails_at.is_some_and(|at| self.operations > at) {
            self.power_is_off = true;
        }
        if !self.stragglers.is_empty() && self.random.chance(200) {
            let at = self.random.below(self.stragglers.len() as u64) as usize;
            let straggler = self.stragglers.swap_remove(at);
            self.land(straggler);
        }
        self.check_power(cycle)
    }

    fn land(&mut self, (inode, offset, bytes): (u64, usize, Vec<u8>)) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.write(offset, &bytes);
            self.counts.stragglers += 1;
        }
    }

    /// Lets every write of a dead process on this file reach it.
    pub(super) fn settle(&mut self, inode: u64) {
        let (landing, flying) = std::mem::take(&mut self.stragglers)
            .into_iter()
            .partition(|straggler| straggler.0 == inode);
        self.stragglers = flying;
        let landing: Vec<_> = landing;
        landing
            .into_iter()
            .for_each(|straggler| self.land(straggler));
    }

    /// A write that was in flight when the power failed: any of its sectors may be there.
    pub(super) fn cut_off(&mut self, (inode, offset, bytes): (u64, usize, &[u8])) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.write_some(offset, bytes, &mut self.random);
        }
    }

    /// A write that was in flight when its process was killed.
    pub(super) fn outlive(&mut self, (inode, offset, bytes): (u64, usize, &[u8])) {
        self.stragglers.push((inode, offset, bytes.to_vec()));
    }

    pub(super) fn lookup(&self, name: &str) -> Option<u64> {
        self.entries.get(name).copied()
    }

    pub(super) fn files(&self) -> Vec<(String, u64)> {
        let len = |inode| {
            self.inodes
                .get(inode)
                .map_or(0, |inode| inode.current.len() as u64)
        };
        self.entries
            .iter()
            .map(|(name, inode)| (name.clone(), len(inode)))
            .collect()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files().iter().map(|(_, len)| len).sum()
    }

    /// Whether `len_bytes` more fit; a refusal is counted.
    pub(super) fn reserve(&mut self, len_bytes: u64) -> bool {
        let fits = self
            .used_bytes()
            .checked_add(len_bytes)
            .is_some_and(|bytes| bytes <= self.capacity_bytes);
        self.counts.space_errors += u64::from(!fits);
        fits
    }

    pub(super) fn create(&mut self, name: &str, len_bytes: u64) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        let current = vec![0; len_bytes as usize];
        self.inodes.insert(
            inode,
            Inode {
                current,
                ..Inode::default()
            },
        );
        self.change_directory(DirectoryChange::Create {
            name: name.to_owned(),
            inode,
        });
        inode
    }

    pub(super) fn change_directory(&mut self, change: DirectoryChange) {
        change.apply(&mut self.entries);
        self.pending_changes.push(change);
    }

    pub(super) fn sync_directory(&mut self) -> io::Result<()> {
        if self.roll(self.rates.sync_errors) {
            self.counts.sync_errors += 1;
            return Err(injected());
        }
        self.durable_entries = self.entries.clone();
        self.pending_changes.clear();
        Ok(())
    }

    pub(super) fn len(&self, inode: u64) -> u64 {
        self.inodes
            .get(&inode)
            .map_or(0, |inode| inode.current.len() as u64)
    }

    /// Reads as much as is there, or less.
    pub(super) fn read(
        &mut self,
        cycle: u64,
        inode: u64,
        offset: u64,
        target: &mut [u8],
    ) -> io::Result<usize> {
        self.check_power(cycle)?;
        self.interrupt()?;
        if self.roll(self.rates.read_errors) {
            self.counts.read_errors += 1;
            return Err(injected());
        }
        let len = self.shorten(target.len());
        let place = (inode, usize::try_from(offset).unwrap_or(usize::MAX));
        let misdirected = self.roll(self.rates.misdirected_reads);
        let elsewhere = misdirected.then(|| self.elsewhere(place, len)).flatten();
        self.counts.misdirected_reads += u64::from(elsewhere.is_some());
        let (inode, offset) = elsewhere.unwrap_or(place);
        let current = self.inodes.get(&inode);
        let rest = current
            .and_then(|inode| inode.current.get(offset..))
            .unwrap_or_default();
        let len = len.min(rest.len());
        target[..len].copy_from_slice(&rest[..len]);
        if self.roll(self.rates.flipped_reads) {
            self.counts.flipped_reads += u64::from(self.flip_any(&mut target[..len]));
        }
        Ok(len)
    }

    /// Writes, or leaves any part of it written if it fails: by an injected fault, or because the power
    /// failed meanwhile.
    pub(super) fn write(
        &mut self,
        cycle: u64,
        inode: u64,
        offset: u64,
        source: &[u8],
    ) -> io::Result<usize> {
        if cycle == self.cycle && self.power_is_off {
            // It was on its way when the power failed.
            self.cut_off((inode, offset as usize, source));
        }
        self.check_power(cycle)?;
        self.interrupt()?;
        let powered = self.begin_change(cycle);
        let faulted = self.roll(self.rates.write_errors);
        let place = (inode, offset as usize);
        let fits = |inode: &Inode| {
            let end = place.1.checked_add(source.len());
            end.is_some_and(|end| end <= inode.current.len())
        };
        match self.inodes.get(&inode) {
            None => return Err(io::Error::from(io::ErrorKind::NotFound)),
            Some(inode) if !fits(inode) => return Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(_) => {}
        }
        if faulted || powered.is_err() {
            self.cut_off((inode, place.1, source));
            powered?;
            self.counts.write_errors += 1;
            return Err(injected());
        }
        let source = &source[..self.shorten(source.len())];
        if self.roll(self.rates.misdirected_writes)
            && let Some(elsewhere) = self.elsewhere(place, source.len())
        {
            self.counts.misdirected_writes += 1;
            self.lie(elsewhere, source);
        } else if self.roll(self.rates.flipped_writes) {
            let mut flipped = source.to_vec();
            self.counts.flipped_writes += u64::from(self.flip_any(&mut flipped));
            self.store(place, &flipped);
        } else {
            self.store(place, source);
        }
        Ok(source.len())
    }

    fn store(&mut self, (inode, offset): (u64, usize), bytes: &[u8]) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.write(offset, bytes);
        }
    }

    /// Overwrites what nobody asked to be overwritten, for good.
    fn lie(&mut self, (inode, offset): (u64, usize), bytes: &[u8]) -> bool {
        let Some(inode) = self.inodes.get_mut(&inode) else {
            return false;
        };
        let mut written = false;
        for target in [&mut inode.current, &mut inode.durable] {
            let end = offset.checked_add(bytes.len());
            if let Some(target) = end.and_then(|end| target.get_mut(offset..end)) {
                target.copy_from_slice(bytes);
                written = true;
            }
        }
        written
    }

    pub(super) fn bytes_of(&self, name: &str) -> Option<&[u8]> {
        let inode = self.inodes.get(&self.lookup(name)?)?;
        Some(&inode.current)
    }

    pub(super) fn overwrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.lookup(name)
            .is_some_and(|inode| self.lie((inode, offset), bytes))
    }

    /// Another place, on a page, where `len` bytes are: in the same file or another.
    fn elsewhere(&mut self, place: (u64, usize), len: usize) -> Option<(u64, usize)> {
        const PAGE: usize = 4096;
        let same = self.random.chance(500);
        let at = self.random.below(self.entries.len() as u64) as usize;
        let other = self.entries.values().nth(at).copied();
        let inode = if same { Some(place.0) } else { other }?;
        let room = self.inodes.get(&inode)?.current.len().checked_sub(len)?;
        let page = self.random.below((room / PAGE) as u64 + 1) as usize;
        let found = (inode, page * PAGE);
        (found != place).then_some(found)
    }

    /// Flips one bit; `false` if there is none.
    fn flip_any(&mut self, bytes: &mut [u8]) -> bool {
        let bit = self.random.below(bytes.len() as u64 * 8) as usize;
        bytes
            .get_mut(bit / 8)
            .map(|byte| *byte ^= 1 << (bit % 8))
            .is_some()
    }

    /// How much of `len` bytes one call transfers: a page at least, then any number of sectors. A device
    /// that transfers less, again and again, is one that fails.
    fn shorten(&mut self, len: usize) -> usize {
        const PAGE_SECTORS: u64 = 8;
        let spare = (len / SECTOR_BYTES) as u64;
        let spare = spare.saturating_sub(PAGE_SECTORS);
        if spare == 0 || !self.roll(self.rates.short_transfers) {
            return len;
        }
        (PAGE_SECTORS + self.random.below(spare)) as usize * SECTOR_BYTES
    }

    /// Fails as a call does that has to be made again.
    fn interrupt(&mut self) -> io::Result<()> {
        if !self.roll(self.rates.interruptions) {
            return Ok(());
        }
        self.counts.interruptions += 1;
        let kinds = [
            io::ErrorKind::Interrupted,
            io::ErrorKind::WouldBlock,
            io::ErrorKind::ResourceBusy,
        ];
        let at = self.random.below(kinds.len() as u64) as usize;
        Err(io::Error::from(kinds[at]))
    }

    pub(super) fn sync(&mut self, cycle: u64, inode: u64) -> io::Result<()> {
        self.begin_change(cycle)?;
        let fails = self.roll(self.rates.sync_errors);
        let Some(inode) = self.inodes.get_mut(&inode) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        inode.durable.resize(inode.current.len(), 0);
        for PendingWrite { offset, bytes } in std::mem::take(&mut inode.pending) {
            // After a failed sync the kernel holds the pages for clean: some were written, the others
            // never will be, and reads still see them.
            if !fails || self.random.chance(500) {
                inode.durable[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
        }
        if fails {
            self.counts.sync_errors += 1;
            return Err(injected());
        }
        Ok(())
    }

    pub(super) fn flip_bit(&mut self, name: &str, bit_index: u64) -> bool {
        let Some(inode) = self
            .lookup(name)
            .and_then(|inode| self.inodes.get_mut(&inode))
        else {
            return false;
        };
        let mut flipped = false;
        for bytes in [&mut inode.current, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut((bit_index / 8) as usize) {
                *byte ^= 1 << (bit_index % 8);
                flipped = true;
            }
        }
        flipped
    }

    pub(super) fn choose_survival(&mut self) -> Survival {
        match self.random.below(6) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::ByWrite,
            _ => Survival::BySector,
        }
    }

    pub(super) fn power_on(&mut self) {
        self.power_is_off = false;
        self.power_fails_at = None;
    }

    pub(super) fn crash(&mut self, survival: Survival) {
        self.counts.crashes += 1;
        let mut changes = std::mem::take(&mut self.pending_changes);
        let random = &mut self.random;
        if random.chance(250) {
            random.shuffle(&mut changes);
        }
        for change in changes {
            let kept = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::ByWrite | Survival::BySector => random.chance(500),
            };
            if kept {
                change.apply(&mut self.durable_entries);
                self.counts.changes_kept += 1;
            } else {
                self.counts.changes_lost += 1;
            }
        }
        self.entries = self.durable_entries.clone();
        for (inode, offset, bytes) in std::mem::take(&mut self.stragglers) {
            if let Some(inode) = self.inodes.get_mut(&inode) {
                inode.write_some(offset, &bytes, random);
            }
        }
        for inode in self.inodes.values_mut() {
            inode.crash(survival, random, &mut self.counts);
        }
        let entries = &self.entries;
        self.inodes
            .retain(|inode, _| entries.values().any(|entry| entry == inode));
        self.power_on();
        self.kill();
    }

    /// Cuts off whoever has a handle.
    pub(super) fn kill(&mut self) {
        self.lock = LockState::Free;
        self.cycle += 1;
    }
}
