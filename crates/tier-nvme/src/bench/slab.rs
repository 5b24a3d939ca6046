//! The slab at work.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore};

use super::store::{MANY, WINDOW_BYTES};
use super::{Action, BenchError, Contender, Work, fill_noise, is_value, mark_value};
use crate::{BlockSlab, SlabConfig};

/// Turns of puts after which blocks are replaced.
const PUT_TURNS: u64 = 4;

/// Bytes of one batch of blocks that are stored to be got.
const FILL_BYTES: usize = 32 << 20;

/// Alignment of blocks, so that they go to the device without a copy.
const ALIGNMENT: usize = 4096;

/// A [`BlockSlab`] at work, whose blocks are the values.
#[derive(Debug)]
pub struct SlabContender {
    path: PathBuf,
    /// The slab of the work at hand.
    slab: Option<(Work, BlockSlab)>,
    buffers: Vec<BufferMut>,
}

impl SlabContender {
    /// A slab for each length of values below a directory.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            slab: None,
            buffers: Vec::new(),
        }
    }

    /// Opens the slab for a piece of work, with all blocks in it that are to be got.
    fn open(&self, work: &Work) -> Result<BlockSlab, BenchError> {
        let (name, blocks) = match work.action {
            Action::Put => ("put", work.values as u64 * (PUT_TURNS + 2)),
            Action::Get => ("get", work.stored_values),
        };
        // Entries take a part of each segment.
        let capacity_bytes = (work.value_bytes as u64 * blocks) / 8 * 9 + (64 << 20);
        let config = SlabConfig::builder()
            .block_bytes(work.value_bytes as u64)
            .capacity_bytes(capacity_bytes)
            .io_depth(u32::try_from(work.depth)?)
            .build()?;
        let path = self.path.join(format!("{name}-{}", work.value_bytes));
        let slab = BlockSlab::open(path, config)?;
        if work.action == Action::Get && slab.usage().blocks < work.stored_values {
            fill(&slab, work)?;
        }
        Ok(slab)
    }

    fn put(slab: &BlockSlab, first: u64, buffers: &mut Vec<BufferMut>) -> Result<(), BenchError> {
        let puts = (first..)
            .zip(buffers.drain(..))
            .map(|(number, payload)| {
                let (key, meta) = (BlockKey(u128::from(number)), BlockMeta::new(b"")?);
                Ok(BlockPut { key, meta, payload })
            })
            .collect::<Result<Vec<_>, BenchError>>()?;
        for stored in slab.put(puts).wait()? {
            buffers.push(stored?);
        }
        Ok(())
    }

    /// Gets a block into each of as many targets, and gives the targets back.
    fn get(
        slab: &BlockSlab,
        picks: &[u64],
        targets: &mut Vec<BufferMut>,
    ) -> Result<(), BenchError> {
        let first = targets.len().saturating_sub(picks.len());
        let gets = picks
            .iter()
            .zip(targets.drain(first..))
            .map(|(&pick, target)| BlockGet {
                key: BlockKey(u128::from(pick)),
                target,
            });
        let blocks = slab.get_blocking(gets.collect())?;
        for (&pick, block) in picks.iter().zip(blocks) {
            let block = block?;
            check(block.payload(), pick)?;
            targets.push(block.target);
        }
        Ok(())
    }

    /// Each block that is there makes room for the next one.
    fn get_by_window(
        slab: &BlockSlab,
        picks: &[u64],
        targets: &mut Vec<BufferMut>,
    ) -> Result<(), BenchError> {
        let mut under_way = VecDeque::with_capacity(targets.len());
        let mut ahead = picks.iter();
        loop {
            while !targets.is_empty()
                && let Some(&pick) = ahead.next()
                && let Some(target) = targets.pop()
            {
                let key = BlockKey(u128::from(pick));
                under_way.push_back((pick, slab.get(vec![BlockGet { key, target }])));
            }
            let Some((pick, get)) = under_way.pop_front() else {
                return Ok(());
            };
            for block in get.wait()? {
                let block = block?;
                check(block.payload(), pick)?;
                targets.push(block.target);
            }
        }
    }
}

fn check(payload: &[u8], number: u64) -> Result<(), BenchError> {
    match is_value(payload, number) {
        true => Ok(()),
        false => Err("the slab gave another block than was put".into()),
    }
}

fn fill(slab: &BlockSlab, work: &Work) -> Result<(), BenchError> {
    let count = (FILL_BYTES / work.value_bytes).max(1);
    for first in (0..work.stored_values).step_by(count) {
        let count = count.min((work.stored_values - first) as usize);
        let mut buffers = blocks(work.value_bytes, first, count)?;
        SlabContender::put(slab, first, &mut buffers)?;
    }
    Ok(())
}

/// Blocks of these numbers.
fn blocks(len_bytes: usize, first: u64, count: usize) -> Result<Vec<BufferMut>, BenchError> {
    (first..first + count as u64)
        .map(|number| {
            let mut block = BufferMut::zeroed(len_bytes, ALIGNMENT)?;
            fill_noise(&mut block, number);
            mark_value(&mut block, number);
            Ok(block)
        })
        .collect()
}

impl Contender for SlabContender {
    fn name(&self) -> String {
        "stepwell slab".to_owned()
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn prepare(&mut self, work: &Work, _turn: u64) -> Result<(), BenchError> {
        if self
            .slab
            .as_ref()
            .is_none_or(|(made_for, _)| made_for != work)
        {
            if let Some((_, slab)) = self.slab.take() {
                slab.close()?;
            }
            self.buffers.clear();
            self.slab = Some((work.clone(), self.open(work)?));
        }
        let wanted = match work.action {
            Action::Put => work.values,
            Action::Get if work.value_bytes >= WINDOW_BYTES => work.depth,
            Action::Get if work.depth == 1 => 1,
            Action::Get => MANY.min(work.values),
        };
        if self.buffers.len() != wanted {
            self.buffers = blocks(work.value_bytes, 0, wanted)?;
        }
        Ok(())
    }

    fn run(&mut self, work: &Work, turn: u64) -> Result<(), BenchError> {
        let Some((_, slab)) = &self.slab else {
            return Err("the slab was not prepared".into());
        };
        let targets = &mut self.buffers;
        match work.action {
            Action::Put => Self::put(slab, turn % PUT_TURNS * work.values as u64, targets),
            Action::Get => {
                let picks = work.picks(turn);
                match work.value_bytes >= WINDOW_BYTES && work.depth > 1 {
                    true => Self::get_by_window(slab, &picks, targets),
                    false => picks
                        .chunks(targets.len().max(1))
                        .try_for_each(|picks| Self::get(slab, picks, targets)),
                }
            }
        }
    }
}
