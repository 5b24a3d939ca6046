//! The state of a simulated disk: what is durable, and what only seems to be there.

use std::collections::BTreeMap;
use std::io;

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

/// A write that was not synced.
#[derive(Debug, Clone)]
struct PendingWrite {
    offset: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What reads see.
    current: Vec<u8>,
    /// What is certain to survive.
    durable: Vec<u8>,
    pending: Vec<PendingWrite>,
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
        }
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
        self.check_power(cycle)
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
        if self.random.chance(self.rates.sync_errors) {
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

    pub(super) fn read(&mut self, inode: u64, offset: u64, target: &mut [u8]) -> io::Result<()> {
        if self.random.chance(self.rates.read_errors) {
            self.counts.read_errors += 1;
            return Err(injected());
        }
        let current = self
            .inodes
            .get(&inode)
            .map_or(&[][..], |inode| &inode.current);
        let source = usize::try_from(offset)
            .ok()
            .and_then(|offset| current.get(offset..)?.get(..target.len()))
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        target.copy_from_slice(source);
        Ok(())
    }

    /// Writes, or leaves any part of it written if it fails: by an injected fault, or because the power
    /// failed meanwhile.
    pub(super) fn write(
        &mut self,
        cycle: u64,
        inode: u64,
        offset: u64,
        source: &[u8],
    ) -> io::Result<()> {
        self.check_power(cycle)?;
        let powered = self.begin_change(cycle);
        let faulted = self.random.chance(self.rates.write_errors);
        let Some(inode) = self.inodes.get_mut(&inode) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        let offset = offset as usize;
        if offset
            .checked_add(source.len())
            .is_none_or(|end| end > inode.current.len())
        {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let failed = faulted || powered.is_err();
        for (i, sector) in source.chunks(SECTOR_BYTES).enumerate() {
            if failed && self.random.chance(500) {
                continue;
            }
            let at = offset + i * SECTOR_BYTES;
            inode.current[at..at + sector.len()].copy_from_slice(sector);
            if failed {
                inode.pending.push(PendingWrite {
                    offset: at,
                    bytes: sector.to_vec(),
                });
            }
        }
        powered?;
        if faulted {
            self.counts.write_errors += 1;
            return Err(injected());
        }
        inode.pending.push(PendingWrite {
            offset,
            bytes: source.to_vec(),
        });
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: u64) -> io::Result<()> {
        let fails = self.random.chance(self.rates.sync_errors);
        let Some(inode) = self.inodes.get_mut(&inode) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        inode.durable.resize(inode.current.len(), 0);
        for write in std::mem::take(&mut inode.pending) {
            // After a failed sync the kernel holds the pages for clean: some were written, the others
            // never will be, and reads still see them.
            if !fails || self.random.chance(500) {
                inode.durable[write.offset..write.offset + write.bytes.len()]
                    .copy_from_slice(&write.bytes);
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
        for inode in self.inodes.values_mut() {
            crash_inode(inode, survival, random, &mut self.counts);
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

fn crash_inode(
    inode: &mut Inode,
    survival: Survival,
    random: &mut Random,
    counts: &mut FaultCounts,
) {
    let mut pending = std::mem::take(&mut inode.pending);
    if random.chance(500) {
        random.shuffle(&mut pending);
    }
    // The length is a part of what an un-synced creation may lose.
    let grows = match survival {
        Survival::Nothing => false,
        Survival::Everything => true,
        Survival::ByWrite | Survival::BySector => random.chance(700),
    };
    if grows && inode.durable.len() < inode.current.len() {
        inode.durable.resize(inode.current.len(), 0);
    }
    for write in pending {
        let whole = match survival {
            Survival::Nothing => Some(false),
            Survival::Everything => Some(true),
            Survival::ByWrite => Some(random.chance(500)),
            Survival::BySector => None,
        };
        let (mut kept_count, mut lost_count) = (0, 0);
        for (i, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
            let at = write.offset + i * SECTOR_BYTES;
            let kept = whole.unwrap_or_else(|| random.chance(500));
            match inode.durable.get_mut(at..at + sector.len()) {
                Some(target) if kept => {
                    target.copy_from_slice(sector);
                    kept_count += 1;
                }
                _ => lost_count += 1,
            }
        }
        counts.sectors_kept += kept_count;
        counts.sectors_lost += lost_count;
        counts.writes_torn += u64::from(kept_count > 0 && lost_count > 0);
    }
    inode.current = inode.durable.clone();
}
