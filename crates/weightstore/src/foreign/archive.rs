//! The content of an archive's files, at any offset.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::coverage::Coverage;
use super::directory::{Directory, Entry, Method};
use super::format::ModelFormat;
use super::inflate::Inflater;
use crate::{ByteSource, WeightError};

/// Files that are inflated at the same time.
const INFLATERS_MAX: usize = 8;
/// Bytes that are read at once for nothing but their checksum.
const CHECK_LEN: u64 = 1 << 20;

/// The files of an archive, or one file that is none.
pub(super) struct Archive<S> {
    source: S,
    len_bytes: u64,
    entries: Vec<Entry>,
    /// Of each entry that is stored as it is.
    coverage: Vec<Mutex<Coverage>>,
    /// The entries that are being inflated, the one used last at the end.
    inflaters: Mutex<Vec<(usize, Arc<Mutex<Inflater>>)>>,
}

impl<S: ByteSource> Archive<S> {
    /// Reads the directory of an archive.
    pub(super) fn open(name: &str, format: ModelFormat, source: S) -> Result<Self, WeightError> {
        let directory = Directory::read(&source).map_err(|reason| format.refused(name, reason))?;
        Self::of_entries(name, format, source, directory.into_entries())
    }

    /// A file that is no archive: one entry without a checksum.
    pub(super) fn of_file(name: &str, format: ModelFormat, source: S) -> Result<Self, WeightError> {
        let len_bytes = source
            .len_bytes()
            .map_err(|error| format.failed(name, error))?;
        let entry = Entry {
            name: name.to_owned(),
            start: 0,
            stored_len: len_bytes,
            len_bytes,
            method: Method::Stored,
            crc: None,
        };
        Self::of_entries(name, format, source, vec![entry])
    }

    fn of_entries(
        name: &str,
        format: ModelFormat,
        source: S,
        entries: Vec<Entry>,
    ) -> Result<Self, WeightError> {
        let len_bytes = source
            .len_bytes()
            .map_err(|error| format.failed(name, error))?;
        Ok(Self {
            source,
            len_bytes,
            coverage: entries.iter().map(|_| Mutex::default()).collect(),
            entries,
            inflaters: Mutex::default(),
        })
    }

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether the source is as long as it was.
    pub(super) fn check_len(&self) -> io::Result<()> {
        match self.source.len_bytes()? == self.len_bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Fills `target` from an offset in the content of an entry.
    pub(super) fn read(&self, index: usize, offset: u64, target: &mut [u8]) -> io::Result<()> {
        let entry = self.entries.get(index);
        let entry = entry.ok_or(io::ErrorKind::UnexpectedEof)?;
        let end = offset.checked_add(target.len() as u64);
        if end.is_none_or(|end| end > entry.len_bytes) {
            return Err(damaged(entry, "is shorter than what it is to hold"));
        }
        if target.is_empty() {
            return Ok(());
        }
        match entry.method {
            Method::Stored => {
                self.source.read_exact_at(entry.start + offset, target)?;
                self.check(index, entry, offset, target)
            }
            Method::Deflated => self.inflated(index, entry, offset, target),
        }
    }

    /// All content of an entry that is short.
    pub(super) fn whole(&self, index: usize, len_max: u64) -> io::Result<Vec<u8>> {
        let entry = self.entries.get(index);
        let entry = entry.ok_or(io::ErrorKind::UnexpectedEof)?;
        if entry.len_bytes > len_max {
            let reason = format!(
                "has {} bytes, more than the limit of {len_max}",
                entry.len_bytes
            );
            return Err(damaged(entry, &reason));
        }
        let mut content = vec![0; entry.len_bytes as usize];
        self.read(index, 0, &mut content)?;
        Ok(content)
    }

    /// Forgets what was read, which was for the headers' sake.
    pub(super) fn forget(&self) {
        lock(&self.inflaters).clear();
        for coverage in &self.coverage {
            *lock(coverage) = Coverage::default();
        }
    }

    /// Bytes that were inflated and not read.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let inflaters = lock(&self.inflaters);
        inflaters
            .iter()
            .map(|(_, inflater)| lock(inflater).held_bytes())
            .sum()
    }

    /// Takes note of what was read of an entry; once it is all, compares it with the checksum.
    fn check(&self, index: usize, entry: &Entry, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (Some(crc), Some(coverage)) = (entry.crc, self.coverage.get(index)) else {
            return Ok(());
        };
        let mut coverage = lock(coverage);
        coverage.add(offset, bytes);
        match coverage.whole(entry.len_bytes) {
            Some(found) if found != crc => Err(damaged(
                entry,
                "does not have the checksum of the directory",
            )),
            _ => Ok(()),
        }
    }

    /// Reads what was not read of entries that were, for their checksums' sake.
    pub(super) fn check_rest(&self) -> io::Result<()> {
        let mut buffer = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let gaps = match self.coverage.get(index) {
                Some(coverage) if entry.crc.is_some() => lock(coverage).gaps(0, entry.len_bytes),
                _ => continue,
            };
            if gaps.as_slice() == [(0, entry.len_bytes)] || entry.method == Method::Deflated {
                continue;
            }
            for (start, end) in gaps {
                let mut at = start;
                while at < end {
                    buffer.resize((end - at).min(CHECK_LEN) as usize, 0);
                    self.read(index, at, &mut buffer)?;
                    at += buffer.len() as u64;
                }
            }
        }
        Ok(())
    }

    fn inflated(
        &self,
        index: usize,
        entry: &Entry,
        offset: u64,
        target: &mut [u8],
    ) -> io::Result<()> {
        let inflater = {
            let mut inflaters = lock(&self.inflaters);
            let known = inflaters.iter().position(|(other, _)| *other == index);
            let used = match known {
                Some(place) => inflaters.remove(place),
                None => (index, Arc::new(Mutex::new(Inflater::new()))),
            };
            if inflaters.len() == INFLATERS_MAX {
                inflaters.remove(0);
            }
            inflaters.push((index, Arc::clone(&used.1)));
            used.1
        };
        let mut inflater = lock(&inflater);
        inflater.read(&self.source, entry, offset, target)?;
        if inflater.is_spent(entry) {
            lock(&self.inflaters).retain(|(other, _)| *other != index);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry that is not what the directory says.
pub(super) fn damaged(entry: &Entry, what: &str) -> io::Error {
    let reason = format!(
        "{:?} {what}; the file is damaged, fetch it again",
        entry.name
    );
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
