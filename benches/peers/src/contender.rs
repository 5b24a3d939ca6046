//! A peer at the work of the table.

use std::path::{Path, PathBuf};

use tier_nvme::bench::{Action, BenchError, Contender, Work, fill_noise, is_value, mark_value};

use crate::cold::drop_pages;

/// Turns of puts after which their keys are used again.
const PUT_TURNS: u64 = 4;

/// Bytes of one batch of values that are stored to be got.
const FILL_BYTES: usize = 32 << 20;

/// A store of values under keys.
pub trait Peer: Sized + Sync {
    /// Its name and how it is set up, for the table.
    const NAME: &'static str;
    /// Whether a batch survives a power loss once `put` returned.
    const IS_DURABLE: bool;

    /// Makes one in an empty directory, for values of so many bytes.
    ///
    /// # Errors
    /// The peer's.
    fn create(path: &Path, value_bytes: usize) -> Result<Self, BenchError>;

    /// Puts a batch, durably where it can.
    ///
    /// # Errors
    /// The peer's.
    fn put(&self, batch: Vec<(String, Vec<u8>)>) -> Result<(), BenchError>;

    /// Hands the values under the keys to `check`, up to `depth` under way at once.
    ///
    /// # Errors
    /// The peer's; those of `check`.
    fn get(&self, keys: &[(String, u64)], depth: usize) -> Result<(), BenchError> {
        if depth == 1 {
            return keys
                .iter()
                .try_for_each(|(key, number)| self.get_one(key, *number));
        }
        let share = keys.len().div_ceil(depth);
        std::thread::scope(|scope| {
            let threads: Vec<_> = keys
                .chunks(share)
                .map(|keys| {
                    scope.spawn(move || {
                        keys.iter()
                            .try_for_each(|(key, number)| self.get_one(key, *number))
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                let panicked = |_| Err("a reading thread panicked".into());
                thread.join().unwrap_or_else(panicked)
            })
        })
    }

    /// Gets one value and [`check`]s it.
    ///
    /// # Errors
    /// The peer's; another value than was put.
    fn get_one(&self, key: &str, number: u64) -> Result<(), BenchError>;

    /// Brings what was put to where it is read from, and empties caches of the peer's own.
    ///
    /// # Errors
    /// The peer's.
    fn settle(&self) -> Result<(), BenchError>;
}

/// Whether it is the value of this number.
pub(crate) fn check(value: Option<&[u8]>, number: u64) -> Result<(), BenchError> {
    match value {
        Some(value) if is_value(value, number) => Ok(()),
        Some(_) => Err("the peer gave another value than was put".into()),
        None => Err("the peer lost a value".into()),
    }
}

/// A peer that takes turns; each piece of work gets an empty one.
#[derive(Debug)]
pub struct PeerContender<P> {
    path: PathBuf,
    peer: Option<(Work, P)>,
    values: Vec<Vec<u8>>,
}

impl<P: Peer> PeerContender<P> {
    /// A peer below a directory.
    pub fn new(directory: &Path) -> Self {
        Self {
            path: directory.join(P::NAME.replace(|c: char| !c.is_alphanumeric(), "-")),
            peer: None,
            values: Vec::new(),
        }
    }

    /// Ends the peer and removes its files.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clear(&mut self) -> Result<(), BenchError> {
        self.peer = None;
        if self.path.exists() {
            std::fs::remove_dir_all(&self.path)?;
        }
        Ok(())
    }

    fn batch(work: &Work, group: u64, first: u64, values: Vec<Vec<u8>>) -> Vec<(String, Vec<u8>)> {
        (first..)
            .zip(values)
            .map(|(number, value)| (key(work, group, number), value))
            .collect()
    }

    fn fill(work: &Work, peer: &P) -> Result<(), BenchError> {
        let count = (FILL_BYTES / work.value_bytes).max(1);
        for first in (0..work.stored_values).step_by(count) {
            let count = count.min((work.stored_values - first) as usize);
            peer.put(Self::batch(work, 0, first, values(work, first, count)))?;
        }
        Ok(())
    }
}

fn key(work: &Work, group: u64, number: u64) -> String {
    format!("{}/{group:02}/{number:08}", work.id)
}

fn values(work: &Work, first: u64, count: usize) -> Vec<Vec<u8>> {
    (first..first + count as u64)
        .map(|number| {
            let mut value = vec![0; work.value_bytes];
            fill_noise(&mut value, number);
            mark_value(&mut value, number);
            value
        })
        .collect()
}

impl<P: Peer> Contender for PeerContender<P> {
    fn name(&self) -> String {
        P::NAME.to_owned()
    }

    fn is_durable(&self) -> bool {
        P::IS_DURABLE
    }

    fn prepare(&mut self, work: &Work, _turn: u64) -> Result<(), BenchError> {
        if self
            .peer
            .as_ref()
            .is_none_or(|(made_for, _)| made_for != work)
        {
            self.clear()?;
            std::fs::create_dir_all(&self.path)?;
            let peer = P::create(&self.path, work.value_bytes)?;
            if work.action == Action::Get {
                Self::fill(work, &peer)?;
            }
            self.peer = Some((work.clone(), peer));
        }
        match (work.action, &self.peer) {
            (Action::Put, _) => self.values = values(work, 0, work.values),
            (Action::Get, Some((_, peer))) => {
                peer.settle()?;
                drop_pages(&self.path)?;
            }
            (Action::Get, None) => {}
        }
        Ok(())
    }

    fn run(&mut self, work: &Work, turn: u64) -> Result<(), BenchError> {
        let Some((_, peer)) = &self.peer else {
            return Err("the peer was not prepared".into());
        };
        match work.action {
            Action::Put => {
                let values = std::mem::take(&mut self.values);
                peer.put(Self::batch(work, turn % PUT_TURNS, 0, values))
            }
            Action::Get => {
                let picks = work.picks(turn);
                let keys: Vec<(String, u64)> = picks
                    .iter()
                    .map(|&pick| (key(work, 0, pick), pick))
                    .collect();
                peer.get(&keys, work.depth)
            }
        }
    }
}
