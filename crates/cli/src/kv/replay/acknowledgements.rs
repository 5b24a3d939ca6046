//! What the disk tier acknowledged, for whoever wants to check it after a kill.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use blockmgr::movement::{MoveEvent, MoveSink, TierId};

use crate::error::CliError;

/// A file with a line for each step of a block: `began`, `stored`, `removing` or `removed`, place and hash.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    file: File,
}

impl Acknowledgements {
    /// Appends to a file, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        let file = File::options().append(true).create(true).open(path);
        let file = file.map_err(|source| CliError::file("open", path, source))?;
        Ok(Self { file })
    }
}

impl MoveSink for Acknowledgements {
    fn publish(&self, events: &[MoveEvent]) {
        let mut lines = String::new();
        for event in events {
            let (what, hash) = match *event {
                MoveEvent::Began {
                    target: TierId::G3,
                    sequence_hash,
                } => ("began", sequence_hash),
                MoveEvent::Moved {
                    target: TierId::G3,
                    sequence_hash,
                    ..
                } => ("stored", sequence_hash),
                MoveEvent::Removing {
                    tier: TierId::G3,
                    sequence_hash,
                } => ("removing", sequence_hash),
                MoveEvent::Removed {
                    tier: TierId::G3,
                    sequence_hash,
                } => ("removed", sequence_hash),
                _ => continue,
            };
            lines.push_str(&format!("{what} {hash}\n"));
        }
        // One write for all, so that a kill leaves whole lines or the beginning of the last. A note that can't be
        // written claims nothing.
        drop((&self.file).write_all(lines.as_bytes()));
    }
}
