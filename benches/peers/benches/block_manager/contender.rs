//! Block managers that can replay a request.

use std::time::{Duration, Instant};

use blockmgr::{BlockPool, RequestOptions, SequenceHash};
use dynamo_tokens::PositionalLineageHash;
use kvbm_logical::manager::FrequencyTrackingCapacity;
use kvbm_logical::{BlockManager, BlockRegistry};

/// Tokens a block, as the peer wants them: the managers only compare the number.
const BLOCK_TOKENS: usize = 512;

/// One request's blocks, hashed for both sides beforehand.
pub(crate) struct Work {
    options: RequestOptions,
    ours: Vec<SequenceHash>,
    theirs: Vec<PositionalLineageHash>,
}

impl Work {
    /// A request of blocks that a trace names; each name stands for a block and all before it.
    pub(crate) fn new(time_ms: u64, names: &[u64]) -> Self {
        let hash = |name: u64| u128::from(mixed(name)) << 64 | u128::from(mixed(!name));
        let mut before = None;
        let theirs = names.iter().enumerate().map(|(position, &name)| {
            let current = mixed(name);
            let parent = before.replace(current);
            PositionalLineageHash::new(current, parent, position as u64)
        });
        Self {
            options: RequestOptions {
                time_ms: Some(time_ms),
                ..RequestOptions::default()
            },
            theirs: theirs.collect(),
            ours: names
                .iter()
                .enumerate()
                .map(|(position, &name)| SequenceHash::new(hash(name), position as u32))
                .collect(),
        }
    }

    pub(crate) fn blocks(&self) -> usize {
        self.ours.len()
    }
}

/// The finaliser of SplitMix64.
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Time and blocks of each kind of call.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) time: [Duration; 4],
    pub(crate) blocks: [u64; 4],
    pub(crate) hits: u64,
}

/// What is tallied, in order.
pub(crate) const CALLS: [&str; 4] = ["match", "allocate", "register", "drop"];

impl Tally {
    pub(crate) fn requested(&self) -> u64 {
        self.blocks[0]
    }

    /// Nanoseconds a block of one kind of call.
    pub(crate) fn ns(&self, call: usize) -> f64 {
        self.time[call].as_nanos() as f64 / self.blocks[call].max(1) as f64
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            time: std::array::from_fn(|call| self.time[call] + other.time[call]),
            blocks: std::array::from_fn(|call| self.blocks[call] + other.blocks[call]),
            hits: self.hits + other.hits,
        }
    }

    fn add(&mut self, call: usize, blocks: usize, since: &mut Instant) {
        let now = Instant::now();
        self.time[call] += now - *since;
        self.blocks[call] += blocks as u64;
        *since = now;
    }
}

/// A block manager that takes part.
pub(crate) trait Contender: Sync {
    fn replay(&self, work: &Work, tally: &mut Tally);

    /// Holds `blocks` blocks of one sequence, and matches them so many times.
    fn match_active(&self, work: &Work, times: u64) -> Duration;
}

/// Ours.
pub(crate) struct Ours(BlockPool);

impl Ours {
    pub(crate) fn new(capacity_blocks: usize) -> Self {
        let builder = BlockPool::builder()
            .capacity_blocks(capacity_blocks)
            .block_tokens(BLOCK_TOKENS);
        Self(builder.build().expect("a pool of a fair size"))
    }
}

impl Contender for Ours {
    fn replay(&self, work: &Work, tally: &mut Tally) {
        let hashes = &work.ours;
        let mut since = Instant::now();
        let found = self.0.match_sequence_hashes_with(hashes, &work.options);
        tally.add(0, hashes.len(), &mut since);
        let missing = &hashes[found.len()..];
        let fresh = self.0.allocate_blocks(missing.len());
        tally.add(1, missing.len(), &mut since);
        let fresh = fresh.expect("the pool is larger than a request");
        let complete = fresh.complete(missing).expect("one hash for each block");
        let registered = self.0.register_blocks(complete);
        tally.add(2, missing.len(), &mut since);
        tally.hits += found.len() as u64;
        drop(registered);
        drop(found);
        tally.add(3, hashes.len(), &mut since);
    }

    fn match_active(&self, work: &Work, times: u64) -> Duration {
        let fresh = self.0.allocate_blocks(work.blocks()).expect("room");
        let complete = fresh.complete(&work.ours).expect("one hash for each block");
        let held = self.0.register_blocks(complete);
        let start = Instant::now();
        for _ in 0..times {
            let found = self.0.match_sequence_hashes(&work.ours);
            assert_eq!(found.len(), work.blocks());
        }
        let elapsed = start.elapsed();
        drop(held);
        elapsed
    }
}

/// Says which blocks the peer has.
#[derive(Debug, Clone)]
struct Marker;

/// The peer, with its least recently used back-end.
pub(crate) struct Theirs(BlockManager<Marker>);

impl Theirs {
    pub(crate) fn new(capacity_blocks: usize) -> Self {
        let tracker = FrequencyTrackingCapacity::default().create_tracker();
        let registry = BlockRegistry::builder().frequency_tracker(tracker).build();
        let builder = BlockManager::builder()
            .block_count(capacity_blocks)
            .block_size(BLOCK_TOKENS)
            .registry(registry)
            .with_lru_backend();
        Self(builder.build().expect("a pool of a fair size"))
    }
}

impl Contender for Theirs {
    fn replay(&self, work: &Work, tally: &mut Tally) {
        let hashes = &work.theirs;
        let mut since = Instant::now();
        let found = self.0.match_blocks(hashes);
        tally.add(0, hashes.len(), &mut since);
        let missing = &hashes[found.len()..];
        let fresh = self.0.allocate_blocks(missing.len());
        tally.add(1, missing.len(), &mut since);
        let fresh = fresh.expect("the pool is larger than a request");
        let complete = fresh.into_iter().zip(missing).map(|(block, hash)| {
            let staged = block.stage(*hash, BLOCK_TOKENS);
            staged.expect("the size of the pool's blocks")
        });
        let registered = self.0.register_blocks(complete.collect());
        tally.add(2, missing.len(), &mut since);
        tally.hits += found.len() as u64;
        drop(registered);
        drop(found);
        tally.add(3, hashes.len(), &mut since);
    }

    fn match_active(&self, work: &Work, times: u64) -> Duration {
        let fresh = self.0.allocate_blocks(work.blocks()).expect("room");
        let complete = fresh.into_iter().zip(&work.theirs).map(|(block, hash)| {
            let staged = block.stage(*hash, BLOCK_TOKENS);
            staged.expect("the size of the pool's blocks")
        });
        let held = self.0.register_blocks(complete.collect());
        let start = Instant::now();
        for _ in 0..times {
            let found = self.0.match_blocks(&work.theirs);
            assert_eq!(found.len(), work.blocks());
        }
        let elapsed = start.elapsed();
        drop(held);
        elapsed
    }
}
