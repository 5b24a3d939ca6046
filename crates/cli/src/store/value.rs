//! Values on their way into a store.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use core_view::BufferMut;
use tier_nvme::NvmeStore;

use crate::error::CliError;

/// What stands for standard input in place of a file.
pub(super) const STANDARD_INPUT: &str = "-";

/// Memory at this alignment goes to the device as it is.
const ALIGNMENT: usize = 4096;

/// Bytes that standard input is read in at first.
const PIECE_BYTES: usize = 1 << 20;

/// Reads values that fit into the segments of one store.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValueReader {
    len_bytes_max: u64,
}

impl ValueReader {
    /// A reader for the values of `store`.
    pub(super) fn new(store: &NvmeStore) -> Self {
        // A segment holds its own header and that of the batch besides.
        let len_bytes_max = store.segment_bytes().saturating_sub(2 * ALIGNMENT as u64);
        Self { len_bytes_max }
    }

    /// Bytes of values that one batch can hold at most.
    pub(super) fn len_bytes_max(self) -> u64 {
        self.len_bytes_max
    }

    /// Reads a whole file, or standard input for `-`.
    pub(super) fn read(self, path: &Path) -> Result<BufferMut, CliError> {
        if path.as_os_str() == STANDARD_INPUT {
            return self.read_stream(io::stdin().lock(), path);
        }
        let fail = |source| CliError::file("read", path, source);
        let file = File::open(path).map_err(|source| CliError::file("open", path, source))?;
        let found = file.metadata().map_err(fail)?;
        if found.is_dir() {
            return Err(fail(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        if !found.is_file() || found.len() == 0 {
            // A pipe has no length; and what says 0, as files of /proc do, may have more.
            return self.read_stream(file, path);
        }
        self.check(found.len(), path)?;
        let mut value = memory(found.len() as usize)?;
        let mut file = file;
        file.read_exact(&mut value)
            .and_then(|()| match file.read(&mut [0])? {
                0 => Ok(value),
                _ => Err(io::Error::other("it grew while it was read")),
            })
            .map_err(fail)
    }

    /// Reads until the end, which may be past what fits.
    fn read_stream(self, stream: impl Read, path: &Path) -> Result<BufferMut, CliError> {
        let fail = |source| CliError::file("read", path, source);
        let mut bytes = Vec::with_capacity(PIECE_BYTES);
        let most = self.len_bytes_max.saturating_add(1);
        stream.take(most).read_to_end(&mut bytes).map_err(fail)?;
        self.check(bytes.len() as u64, path)?;
        Ok(BufferMut::from_vec(bytes))
    }

    /// Refuses what no batch of the store can hold.
    pub(super) fn check(self, len_bytes: u64, path: &Path) -> Result<(), CliError> {
        if len_bytes <= self.len_bytes_max {
            return Ok(());
        }
        Err(CliError::ValueTooLarge {
            what: path.display().to_string(),
            len_bytes_max: self.len_bytes_max,
        })
    }
}

fn memory(len: usize) -> Result<BufferMut, CliError> {
    BufferMut::zeroed(len, ALIGNMENT).map_err(|_| CliError::Memory {
        requested_bytes: len,
    })
}
