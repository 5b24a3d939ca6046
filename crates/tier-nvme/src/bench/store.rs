//! The store at work.

use std::path::Path;

use core_view::BufferMut;

use super::{Action, BenchError, Contender, Work, fill_noise, is_value, mark_value};
use crate::{NvmeStore, StorageConfig, StoreStats, WriteBatch};

/// Turns of puts after which their keys are used again, so that the older values die.
const PUT_TURNS: u64 = 4;

/// Bytes of one batch of values that are stored to be got.
const FILL_BYTES: usize = 32 << 20;

/// An [`NvmeStore`] at work. Values to be put are in memory of [`NvmeStore::buffer`], which goes to the device
/// without a copy.
#[derive(Debug)]
pub struct StoreContender {
    store: NvmeStore,
    name: String,
    /// The work whose values are stored.
    filled: Option<&'static str>,
    values: Vec<BufferMut>,
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
            store: NvmeStore::new(path, config)?,
            name: name.to_owned(),
            filled: None,
            values: Vec::new(),
        })
    }

    /// What the store counts.
    pub fn stats(&self) -> StoreStats {
        self.store.stats()
    }

    fn key(work: &Work, group: u64, number: u64) -> String {
        format!("{}/{group:02}/{number:08}", work.id)
    }

    /// Values in memory of the store's.
    fn values(&self, work: &Work, first: u64, count: usize) -> Result<Vec<BufferMut>, BenchError> {
        (first..first + count as u64)
            .map(|number| {
                let mut value = self.store.buffer(work.value_bytes)?;
                fill_noise(&mut value, number);
                mark_value(&mut value, number);
                Ok(value)
            })
            .collect()
    }

    fn batch(work: &Work, group: u64, first: u64, values: Vec<BufferMut>) -> WriteBatch {
        (first..)
            .zip(values)
            .fold(WriteBatch::new(), |batch, (number, value)| {
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

    fn get(&self, work: &Work, turn: u64) -> Result<(), BenchError> {
        let picks = work.picks(turn);
        let share = picks.len().div_ceil(work.depth.max(1));
        let read = |picks: &[u64]| -> Result<(), BenchError> {
            for &pick in picks {
                let value = self.store.read_direct(Self::key(work, 0, pick))?;
                if !value.is_some_and(|value| is_value(&value, pick)) {
                    return Err("the store gave another value than was put".into());
                }
            }
            Ok(())
        };
        if work.depth == 1 {
            return read(&picks);
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = picks
                .chunks(share)
                .map(|picks| scope.spawn(|| read(picks)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                let panicked = |_| Err("a reading thread panicked".into());
                thread.join().unwrap_or_else(panicked)
            })
        })
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
                }
                // A batch that never ran gives its memory back first.
                self.values.clear();
                self.values = self.values(work, 0, work.values)?;
                if turn > 0 && turn.is_multiple_of(PUT_TURNS) {
                    self.store.checkpoint()?;
                }
            }
            Action::Get if self.filled != Some(work.id) => {
                self.clear()?;
                self.fill(work)?;
            }
            Action::Get => {}
        }
        Ok(())
    }

    fn run(&mut self, work: &Work, turn: u64) -> Result<(), BenchError> {
        match work.action {
            Action::Put => {
                let values = std::mem::take(&mut self.values);
                let batch = Self::batch(work, turn % PUT_TURNS, 0, values);
                Ok(self.store.write_batch(batch)?)
            }
            Action::Get => self.get(work, turn),
        }
    }
}
