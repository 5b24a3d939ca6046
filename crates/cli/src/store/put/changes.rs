//! Changes on their way into a store, a batch at a time.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use core_view::BufferMut;
use tier_nvme::WriteBatch;

use super::super::change_lines::{ChangeLines, Content};
use super::super::folder::Files;
use super::super::value::{STANDARD_INPUT, ValueReader};
use super::Arguments;
use crate::error::CliError;

/// Where changes come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// Keys and the files of their values.
    Pairs(Vec<(Vec<u8>, PathBuf)>),
    /// The files below a directory, and what goes in front of their keys.
    Folder(PathBuf, OsString),
    /// Lines of JSON.
    Lines(PathBuf),
}

impl Origin {
    /// What the arguments name.
    pub(super) fn of(arguments: &Arguments) -> Result<Self, CliError> {
        if let Some(folder) = &arguments.from {
            return Ok(Self::Folder(folder.clone(), arguments.prefix.clone()));
        }
        if let Some(path) = &arguments.jsonl {
            return Ok(Self::Lines(path.clone()));
        }
        let usage = |reason: &str| CliError::Usage {
            reason: reason.to_owned(),
        };
        let (pairs, rest) = arguments.pairs.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(usage("each key needs a file, and the last one has none"));
        }
        let from_input = |[_, file]: &&[OsString; 2]| file == STANDARD_INPUT;
        if pairs.iter().filter(from_input).count() > 1 {
            return Err(usage("standard input can be the value of one key only"));
        }
        let pairs = pairs
            .iter()
            .map(|[key, file]| Ok((arguments.form.parse(key)?, PathBuf::from(file))));
        Ok(Self::Pairs(pairs.collect::<Result<_, CliError>>()?))
    }

    /// Finds out whether everything that is named is there.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let look = |path: &PathBuf| match path.as_os_str() == STANDARD_INPUT {
            true => Ok(()),
            false => match path.metadata() {
                Ok(_) => Ok(()),
                Err(source) => Err(CliError::file("open", path, source)),
            },
        };
        match self {
            Self::Pairs(pairs) => pairs.iter().try_for_each(|(_, path)| look(path)),
            Self::Folder(path, _) => Files::below(path).map(drop),
            Self::Lines(path) => look(path),
        }
    }

    /// Whether everything has to become one batch.
    pub(super) fn is_one_batch(&self) -> bool {
        matches!(self, Self::Pairs(_))
    }
}

/// What the entry of a change takes in the head of its batch, besides its key.
const ENTRY_BYTES: u64 = 64;

/// Values from this length on take whole pages.
const PAGE_BYTES: u64 = 4096;

/// How much one batch takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of values; one value may be longer.
    pub(super) value_bytes: u64,
    /// Bytes in the log.
    pub(super) log_bytes: u64,
    /// Changes.
    pub(super) changes: u64,
    /// Whether nothing may be split.
    pub(super) whole: bool,
}

/// Changes that become durable together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) batch: WriteBatch,
    pub(super) puts: u64,
    pub(super) removals: u64,
    pub(super) value_bytes: u64,
    pub(super) last_key: Vec<u8>,
    /// What all of it takes in the log, or a little less.
    log_bytes: u64,
}

/// What a value and its entry take in the log.
fn log_bytes(key: &[u8], value_bytes: u64) -> u64 {
    let unit = if value_bytes < PAGE_BYTES {
        8
    } else {
        PAGE_BYTES
    };
    value_bytes.next_multiple_of(unit) + key.len() as u64 + ENTRY_BYTES
}

/// Batches that a thread reads, one ahead of the one that is being stored.
#[derive(Debug)]
pub(super) struct Changes(Receiver<Result<Batch, CliError>>);

impl Changes {
    pub(super) fn read(
        origin: Origin,
        values: ValueReader,
        limits: Limits,
    ) -> Result<Self, CliError> {
        let (sender, receiver) = sync_channel(0);
        let mut reading = Reading {
            values,
            limits,
            batch: Batch::default(),
            sender,
        };
        // Nobody waits for the thread: after a failure it may sit before a silent pipe for ever.
        std::thread::Builder::new()
            .name("changes".to_owned())
            .spawn(move || {
                if let Err(Stop::Failed(error)) = reading.run(origin) {
                    // Who no longer receives needs no reason.
                    drop(reading.sender.send(Err(error)));
                }
            })
            .map_err(|source| CliError::file("start a thread for", "the input", source))?;
        Ok(Self(receiver))
    }
}

impl Iterator for Changes {
    type Item = Result<Batch, CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.recv().ok()
    }
}

/// Why reading ends early.
enum Stop {
    /// Nobody takes batches any more.
    Unwanted,
    Failed(CliError),
}

impl From<CliError> for Stop {
    fn from(error: CliError) -> Self {
        Self::Failed(error)
    }
}

/// Gathers changes until a batch is full.
struct Reading {
    values: ValueReader,
    limits: Limits,
    batch: Batch,
    sender: SyncSender<Result<Batch, CliError>>,
}

impl Reading {
    fn run(&mut self, origin: Origin) -> Result<(), Stop> {
        match origin {
            Origin::Pairs(pairs) => {
                for (key, path) in pairs {
                    let value = self.values.read(&path)?;
                    self.put(key, value)?;
                }
            }
            Origin::Folder(folder, prefix) => {
                for file in Files::below(&folder)? {
                    let (key, path) = file?;
                    let key = [prefix.as_bytes(), key.as_os_str().as_bytes()].concat();
                    let value = self.values.read(&path)?;
                    self.put(key, value)?;
                }
            }
            Origin::Lines(path) => {
                let reader: Box<dyn BufRead> = if path.as_os_str() == STANDARD_INPUT {
                    Box::new(BufReader::new(io::stdin()))
                } else {
                    let file = File::open(&path);
                    let file = file.map_err(|source| CliError::file("open", &path, source))?;
                    Box::new(BufReader::with_capacity(1 << 20, file))
                };
                self.run_lines(ChangeLines::new(reader, &path))?;
            }
        }
        self.send()
    }

    fn run_lines(&mut self, mut lines: ChangeLines<Box<dyn BufRead>>) -> Result<(), Stop> {
        while let Some(line) = lines.next() {
            match line? {
                (key, Content::Bytes(bytes)) => {
                    let place = lines.place();
                    self.values.check(bytes.len() as u64, place.as_ref())?;
                    self.put(key, BufferMut::from_vec(bytes))?;
                }
                (key, Content::File(path)) => {
                    let value = self.values.read(&path)?;
                    self.put(key, value)?;
                }
                (key, Content::Nothing) => {
                    self.make_room(&key, 0)?;
                    self.batch.removals += 1;
                    self.batch.batch = std::mem::take(&mut self.batch.batch).delete(key);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, key: Vec<u8>, value: BufferMut) -> Result<(), Stop> {
        self.make_room(&key, value.len() as u64)?;
        self.batch.puts += 1;
        self.batch.value_bytes += value.len() as u64;
        self.batch.batch = std::mem::take(&mut self.batch.batch).put(key, value);
        Ok(())
    }

    /// Sends the batch off if another change is too much for it, and counts the change to the next one.
    fn make_room(&mut self, key: &[u8], value_bytes: u64) -> Result<(), Stop> {
        let limits = self.limits;
        let more = log_bytes(key, value_bytes);
        let filled_bytes = self.batch.log_bytes + more;
        if limits.whole {
            if filled_bytes > limits.log_bytes && !self.batch.batch.is_empty() {
                let what = "the sum of all values".to_owned();
                let len_bytes_max = limits.log_bytes;
                return Err(Stop::Failed(CliError::ValueTooLarge {
                    what,
                    len_bytes_max,
                }));
            }
        } else if !self.batch.batch.is_empty()
            && (self.batch.batch.len() as u64 >= limits.changes
                || self.batch.value_bytes + value_bytes > limits.value_bytes
                || filled_bytes > limits.log_bytes)
        {
            self.send()?;
        }
        self.batch.log_bytes += more;
        self.batch.last_key = key.to_vec();
        Ok(())
    }

    fn send(&mut self) -> Result<(), Stop> {
        let batch = std::mem::take(&mut self.batch);
        if batch.batch.is_empty() {
            return Ok(());
        }
        self.sender.send(Ok(batch)).map_err(|_| Stop::Unwanted)
    }
}
