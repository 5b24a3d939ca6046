//! A log on a simulated volume beside what it must hold.

use core_view::contract::{ErrorKind, Transfer};
use tier_nvme::sim::{FaultRates, SimVolume};
use tier_nvme::{Lsn, NvmeError, Wal, WalConfig};

/// What was appended, and how much of it has to be there.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Expected {
    /// Payloads from LSN 1 on.
    pub(crate) records: Vec<Vec<u8>>,
    /// How many were acknowledged.
    pub(crate) acknowledged: usize,
    /// LSNs of the last records of batches.
    pub(crate) ends: Vec<u64>,
    /// Records before this LSN may be gone.
    pub(crate) floor: u64,
}

impl Expected {
    pub(crate) fn append(&mut self, payloads: &[Vec<u8>]) -> u64 {
        self.records.extend_from_slice(payloads);
        let last = self.records.len() as u64;
        self.ends.push(last);
        last
    }

    pub(crate) fn acknowledge(&mut self, lsn: u64) {
        assert!(lsn <= self.records.len() as u64);
        self.acknowledged = self.acknowledged.max(lsn as usize);
    }

    /// Takes over how much the log holds after it was opened, if it may hold that.
    pub(crate) fn settle(&mut self, next_lsn: u64, what: &str) {
        let held = (next_lsn - 1) as usize;
        assert!(
            held >= self.acknowledged,
            "{what}: {} records were acknowledged, {held} are there",
            self.acknowledged
        );
        assert!(
            held <= self.records.len(),
            "{what}: {held} records are there"
        );
        assert!(
            held == 0 || self.ends.contains(&(held as u64)),
            "{what}: half a batch is there, up to {held}"
        );
        self.records.truncate(held);
        self.ends.retain(|&end| end <= held as u64);
        self.acknowledged = held;
    }

    /// Compares everything that the log holds; an error of the device is passed on.
    pub(crate) fn compare(&self, wal: &Wal, from: u64, what: &str) -> Result<u64, NvmeError> {
        let mut next = from;
        for record in wal.replay(Lsn::new(from))? {
            let record = record?;
            assert_eq!(record.lsn.get(), next, "{what}");
            assert_eq!(
                Some(&record.payload),
                self.records.get(next as usize - 1),
                "{what}: record {next} is another"
            );
            next += 1;
        }
        assert!(
            next > self.acknowledged as u64,
            "{what}: record {next} was acknowledged and is not there"
        );
        Ok(next)
    }
}

/// A log and the disk it is on.
pub(crate) struct Life {
    pub(crate) volume: SimVolume,
    pub(crate) wal: Option<Wal>,
    pub(crate) expected: Expected,
    pub(crate) outstanding: Vec<(u64, Transfer<Lsn>)>,
    pub(crate) file_bytes: u64,
    pub(crate) spare_files: usize,
}

impl Life {
    pub(crate) fn new(volume: SimVolume, file_bytes: u64) -> Self {
        let expected = Expected {
            floor: 1,
            ..Expected::default()
        };
        Self {
            volume,
            wal: None,
            expected,
            outstanding: Vec::new(),
            file_bytes,
            spare_files: 2,
        }
    }

    pub(crate) fn config(&self) -> WalConfig {
        WalConfig::new("W-")
            .with_file_bytes(self.file_bytes)
            .with_buffer_bytes(256 << 10)
            .with_spare_files(self.spare_files)
            .with_manual_steps(true)
    }

    pub(crate) fn wal(&self) -> &Wal {
        self.wal.as_ref().unwrap()
    }

    pub(crate) fn try_open(&mut self, volume: &SimVolume) -> Result<(), NvmeError> {
        if self.wal.is_none() {
            self.wal = Some(Wal::open(volume.handle(), self.config())?);
        }
        Ok(())
    }

    /// Puts records on their way.
    pub(crate) fn send(&mut self, payloads: Vec<Vec<u8>>) -> Result<(), NvmeError> {
        let slices: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
        let before = self.wal().next_lsn();
        let transfer = self.wal().append_batch_async(&slices);
        if self.wal().next_lsn() > before {
            let lsn = self.expected.append(&payloads);
            self.outstanding.push((lsn, transfer));
            return Ok(());
        }
        match transfer.wait() {
            Ok(lsn) => panic!("record {lsn} was acknowledged and has no place"),
            Err(failure) => Err(NvmeError::from(failure)),
        }
    }

    /// Looks which records were acknowledged meanwhile.
    pub(crate) fn collect(&mut self) -> Result<(), NvmeError> {
        let mut result = Ok(());
        for (lsn, transfer) in std::mem::take(&mut self.outstanding) {
            if !transfer.is_done() {
                self.outstanding.push((lsn, transfer));
                continue;
            }
            match transfer.wait() {
                Ok(acknowledged) => {
                    assert_eq!(acknowledged.get(), lsn);
                    self.expected.acknowledge(lsn);
                }
                Err(failure) => result = Err(NvmeError::from(failure)),
            }
        }
        result
    }

    /// Steps until there is nothing to do.
    pub(crate) fn finish(&mut self) -> Result<(), NvmeError> {
        while self.wal().step(false) || self.volume.step() {}
        self.collect()
    }

    /// Forgets the log that was open, whatever became of it.
    pub(crate) fn forget(&mut self) {
        self.outstanding.clear();
        self.wal = None;
    }

    /// Decides what the log holds, and compares all of it.
    pub(crate) fn settle(&mut self, what: &str) -> Result<(), NvmeError> {
        let next = self.wal().next_lsn().get();
        self.expected.settle(next, what);
        let first = self.wal().first_lsn().get();
        assert!(
            first <= self.expected.floor,
            "{what}: records from {} are needed, the log begins at {first}",
            self.expected.floor
        );
        self.expected
            .compare(self.wal.as_ref().unwrap(), first, what)?;
        Ok(())
    }

    pub(crate) fn without_faults(&self) {
        self.volume.set_faults(FaultRates::default());
        self.volume.set_capacity(u64::MAX);
    }
}

/// Whether a fault of the device explains an error.
pub(crate) fn is_excused(error: &NvmeError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Poisoned
    )
}
