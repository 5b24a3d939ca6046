//! The log of a block device's writes, in the format of Linux's dm-log-writes target
//! (`Documentation/admin-guide/device-mapper/log-writes.rst`).
//!
//! A superblock in the first sector (magic, version, number of entries, sector size), then the entries: a
//! header of four 64-bit numbers (first sector, sectors, flags, length of a mark) that takes a sector,
//! and the data. Everything is little-endian.

use std::io;
use std::os::unix::fs::FileExt;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// Most bytes of one write: more is not a log.
const WRITE_BYTES_MAX: u64 = 1 << 30;

/// One entry, its data left in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where on the device the data goes, in bytes.
    pub(super) offset_bytes: u64,
    pub(super) len_bytes: u64,
    flags: u64,
    /// Where in the log the data is.
    pub(super) data_at: u64,
    /// Where in the log the entry ends.
    pub(super) end_at: u64,
}

impl Entry {
    /// Whether what completed before this is durable from here on.
    pub(super) fn is_flush(&self) -> bool {
        self.flags & FLUSH != 0
    }

    /// Whether the write itself is durable when it completes.
    pub(super) fn is_durable(&self) -> bool {
        self.flags & FUA != 0
    }

    /// Whether the sectors are given up: they read as zeros afterwards, or as anything.
    pub(super) fn is_discard(&self) -> bool {
        self.flags & DISCARD != 0
    }

    fn has_data(&self) -> bool {
        self.flags & (DISCARD | MARK) == 0
    }
}

fn refused(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// The `N`th 64-bit number of `bytes`.
fn word(bytes: &[u8], number: usize) -> u64 {
    bytes
        .chunks_exact(8)
        .nth(number)
        .and_then(|chunk| chunk.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// Reads all entries that the superblock counts.
pub(super) fn read(log: &impl FileExt) -> io::Result<Vec<Entry>> {
    let mut superblock = [0; 32];
    log.read_exact_at(&mut superblock, 0)?;
    if word(&superblock, 0) != MAGIC || word(&superblock, 1) != VERSION {
        return Err(refused("it is no log of writes of version 1"));
    }
    let count = word(&superblock, 2);
    let sector_bytes = word(&superblock, 3) & 0xffff_ffff;
    if !sector_bytes.is_power_of_two() || !(512..=65_536).contains(&sector_bytes) {
        return Err(refused(format!("sectors of {sector_bytes} bytes")));
    }
    let mut entries = Vec::new();
    let mut at = sector_bytes;
    for _ in 0..count {
        let entry = read_entry(log, at, sector_bytes)?;
        at = entry.end_at;
        entries.push(entry);
    }
    Ok(entries)
}

fn read_entry(log: &impl FileExt, at: u64, sector_bytes: u64) -> io::Result<Entry> {
    let mut header = [0; 32];
    log.read_exact_at(&mut header, at)?;
    let in_bytes = |sectors: u64| sectors.checked_mul(sector_bytes);
    let (Some(offset_bytes), Some(len_bytes)) =
        (in_bytes(word(&header, 0)), in_bytes(word(&header, 1)))
    else {
        return Err(refused(format!("a write beyond any device at {at}")));
    };
    let mut entry = Entry {
        offset_bytes,
        len_bytes,
        flags: word(&header, 2),
        data_at: at + sector_bytes,
        end_at: at + sector_bytes,
    };
    if entry.has_data() {
        if len_bytes > WRITE_BYTES_MAX {
            return Err(refused(format!("a write of {len_bytes} bytes at {at}")));
        }
        entry.end_at += len_bytes;
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn log(words: &[[u64; 4]], count: u64) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        let sector = |words: [u64; 4]| {
            let mut bytes = words.map(u64::to_le_bytes).concat();
            bytes.resize(512, 0);
            bytes
        };
        file.write_all(&sector([MAGIC, VERSION, count, 512]))
            .unwrap();
        for &words in words {
            file.write_all(&sector(words)).unwrap();
            let claims_too_much = words[1] > 64;
            if words[2] & (DISCARD | MARK) == 0 && !claims_too_much {
                file.write_all(&vec![7; words[1] as usize * 512]).unwrap();
            }
        }
        file
    }

    #[test]
    fn entries_follow_one_another() {
        let entries = [
            [8, 2, 0, 0],
            [0, 0, FLUSH, 0],
            [16, 4, DISCARD, 0],
            [1, 1, FUA, 0],
        ];
        let read = read(&log(&entries, 4)).unwrap();
        assert_eq!(read[0].offset_bytes, 4096);
        assert_eq!((read[0].data_at, read[0].end_at), (1024, 2048));
        assert!(read[1].is_flush() && read[1].end_at == 2560);
        assert!(read[2].is_discard() && read[2].end_at == 3072);
        assert!(read[3].is_durable() && read[3].end_at == 4096);
    }

    #[test]
    fn what_is_no_log_is_refused() {
        assert!(read(&log(&[], 1)).is_err(), "it ends early");
        assert!(read(&log(&[[1, u64::MAX / 1024, 0, 0]], 1)).is_err());
        assert!(read(&log(&[[u64::MAX, 1, 0, 0]], 1)).is_err());
        let mut other = tempfile::tempfile().unwrap();
        other.write_all(&[1; 4096]).unwrap();
        assert!(read(&other).is_err());
    }
}
