//! The store at work.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use core_view::BufferMut;

use super::{Action, BenchError, Contender, Work, fill_noise, is_value, mark_value};
use crate::{NvmeError, NvmeStore, StorageConfig, StoreStats, WriteBatch};

/// Turns of puts after which their keys are used again, so that the older values die.
const PUT_TURNS: u64 = 4;

/// Values of this length and more are got by a window of calls under way.
pub(super) const WINDOW_BYTES: usize = 256 << 10;

/// Smaller values that one call gets.
pub(super) const MANY: usize = 1024;

/// Bytes of memory that short values share.
const SIDE_BY_SIDE_BYTES: usize = 1 << 20;

/// Bytes of one batch of values that are stored to be got.
const FILL_BYTES: usize = 32 << 20;

/// An [`NvmeStore`] at work. Values to be put are in memory of [`NvmeStore::buffer`], which goes to the device
/// without a copy.
#[derive(Debug)]
pub struct StoreContender {
    store: NvmeStore,
    path: PathBuf,
    config: StorageConfig,
    name: String,
    /// The work whose values are stored.
    filled: Option<&'static str>,
    /// What the next turn puts.
    batch: WriteBatch,
}

impl StoreContender {
    /// Makes a store with the usual configuration.
    ///
    /// # Errors
    /// Those of [`NvmeStore::new`].
    pub fn create(path: &Path) -> Result<Self, BenchError> {
        Self::with_config("stepwell", path, StorageConfig::default())
    }

    /// Makes a store with a configuration of its own.
    ///
    /// # Errors
    /// Those of [`NvmeStore::new`].
    pub fn with_config(name: &str, path: &Path, config: StorageConfig) -> Result<Self, BenchError> {
        Ok(Self {
            store: NvmeStore::new(path, config.clone())?,
            path: path.to_owned(),
            config,
            name: name.to_owned(),
            filled: None,
            batch: WriteBatch::new(),
        })
    }

    /// What the store counts.
    pub fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn key(work: &Work, group: u64, number: u64) -> String {
        format!("{}/{group:02}/{number:08}", work.id)
    }

    /// Values in memory of the store's: short ones side by side, as they are for the raw loop.
    fn values(&self, work: &Work, first: u64, count: usize) -> Result<Vec<BufferMut>, BenchError> {
        let side_by_side = (SIDE_BY_SIDE_BYTES / work.value_bytes).max(1);
        let mut values = Vec::with_capacity(count);
        while values.len() < count {
            let now = side_by_side.min(count - values.len());
            let memory = self.store.buffer(now * work.value_bytes)?;
            values.extend(memory.split_into(work.value_bytes));
        }
        for (number, value) in (first..).zip(&mut values) {
            fill_noise(value, number);
            mark_value(value, number);
        }
        Ok(values)
    }

    fn batch(work: &Work, group: u64, first: u64, values: Vec<BufferMut>) -> WriteBatch {
        let batch = WriteBatch::with_capacity(values.len());
        (first..).zip(values).fold(batch, |batch, (number, value)| {
            batch.put(Self::key(work, group, number), value)
        })
    }

    /// Stores what is to be got, instead of what was stored for other work.
    fn fill(&mut self, work: &Work) -> Result<(), BenchError> {
        let count = (FILL_BYTES / work.value_bytes).max(1);
        for first in (0..work.stored_values).step_by(count) {
            let count = count.min((work.stored_values - first) as usize);
            let values = self.values(work, first, count)?;
            self.store
                .write_batch(Self::batch(work, 0, first, values))?;
        }
        self.filled = Some(work.id);
        Ok(())
    }

    /// Removes everything and gives the space back.
    fn clear(&self) -> Result<(), BenchError> {
        let keys = self.store.keys_with_prefix("");
        for part in keys.chunks(4096) {
            let batch = part
                .iter()
                .fold(WriteBatch::new(), |batch, key| batch.delete(key.as_slice()));
            self.store.write_batch(batch)?;
        }
        Ok(self.store.checkpoint()?)
    }

    /// Opens the store anew, for as many operations at once as the work says.
    fn reopen(&mut self, depth: usize) -> Result<(), BenchError> {
        self.store.close()?;
        let depth = u32::try_from(depth)?.max(1);
        let config = self.config.clone().with_io_depth(depth);
        self.store = NvmeStore::new(&self.path, config)?;
        Ok(())
    }

    fn get(&self, work: &Work, turn: u64) -> Result<(), BenchError> {
        let picks = work.picks(turn);
        match work.depth {
            1 => picks.iter().try_for_each(|&pick| {
                let value = self.store.read_direct(Self::key(work, 0, pick))?;
                check(value.as_deref(), pick)
            }),
            depth if work.value_bytes >= WINDOW_BYTES => self.get_by_window(work, &picks, depth),
            _ => picks
                .chunks(MANY)
                .try_for_each(|picks| self.get_many(work, picks)),
        }
    }

    /// Each value that is there makes room for the next one.
    fn get_by_window(&self, work: &Work, picks: &[u64], depth: usize) -> Result<(), BenchError> {
        let mut under_way = VecDeque::with_capacity(depth);
        let mut ahead = picks.iter();
        loop {
            while under_way.len() < depth
                && let Some(&pick) = ahead.next()
            {
                let read = self.store.read_async(Self::key(work, 0, pick));
                under_way.push_back((pick, read));
            }
            let Some((pick, read)) = under_way.pop_front() else {
                return Ok(());
            };
            let value = read.wait().map_err(NvmeError::from)?;
            check(value.as_deref(), pick)?;
        }
    }

    /// One call for many values, of which the store reads as many at once as it was opened for.
    fn get_many(&self, work: &Work, picks: &[u64]) -> Result<(), BenchError> {
        let keys: Vec<String> = picks.iter().map(|&pick| Self::key(work, 0, pick)).collect();
        let values = self.store.read_many(&keys);
        picks
            .iter()
            .zip(values)
            .try_for_each(|(&pick, value)| check(value?.as_deref(), pick))
    }
}

fn check(value: Option<&[u8]>, number: u64) -> Result<(), BenchError> {
    match value {
        Some(value) if is_value(value, number) => Ok(()),
        _ => Err("the store gave another value than was put".into()),
    }
}

impl Contender for StoreContender {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn prepare(&mut self, work: &Work, turn: u64) -> Result<(), BenchError> {
        match work.action {
            Action::Put => {
                if self.filled.take().is_some() {
                    self.clear()?;
                    self.reopen(self.config.io_depth() as usize)?;
                }
                // A batch that never ran gives its memory back first.
                self.batch = WriteBatch::new();
                let values = self.values(work, 0, work.values)?;
                self.batch = Self::batch(work, turn % PUT_TURNS, 0, values);
                if turn > 0 && turn.is_multiple_of(PUT_TURNS) {
                    self.store.checkpoint()?;
                }
            }
            Action::Get if self.filled != Some(work.id) => {
                self.clear()?;
                self.fill(work)?;
                self.reopen(work.depth)?;
            }
            Action::Get => {}
        }
        Ok(())
    }

    fn run(&mut self, work: &Work, turn: u64) -> Result<(), BenchError> {
        match work.action {
            Action::Put => Ok(self.store.write_batch(std::mem::take(&mut self.batch))?),
            Action::Get => self.get(work, turn),
        }
    }
}
