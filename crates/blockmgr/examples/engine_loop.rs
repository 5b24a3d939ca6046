//! An engine's loop over three tiers: its own memory, host memory, and a slab on disk.
//!
//! Each request matches what the tiers have of its prompt, allocates the rest, fills it, registers it, decodes an answer,
//! and lets blocks go down between requests. The model is made up, but each byte of its KV depends on every token before it, as
//! with a real one: what comes back is compared with what the tokens say. In the middle the engine restarts.
//!
//! Works in `kv-blocks` below the current directory, and removes it.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blockmgr::layout::{Layout, LayoutConfig};
use blockmgr::movement::{Admission, Cancellation, OffloadOptions, Origin, TierId};
use blockmgr::{
    BlockPool, BlockPoolBuilder, ImmutableBlocks, RequestOptions, Salt, TieredCache, TokenSequence,
};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::BufferMut;
use core_view::contract::{BlockStore, HostTier, MemoryTier, SlotRead};
use tier_nvme::{BlockSlab, SlabConfig};

/// Tokens a block.
const PAGE_TOKENS: usize = 16;
/// Blocks of the engine's memory, of host memory, and on disk.
const G1_BLOCKS: usize = 16;
const G2_BLOCKS: usize = 48;
const G3_BLOCKS: usize = 128;
/// Tokens of each answer.
const ANSWER_TOKENS: usize = 24;
/// Of the model, of its precision, and of all else that changes the bytes.
const MODEL: &str = "toy-2-layers-f16-page-16";

type Fallible<T> = Result<T, Box<dyn Error>>;

fn layout() -> Fallible<Layout> {
    let layout = LayoutConfig::builder()
        .num_blocks(G1_BLOCKS)
        .num_layers(2)
        .outer_dim(2)
        .page_size(PAGE_TOKENS)
        .heads(4)
        .head_dim(16)
        .dtype_bytes(2);
    Ok(layout.build()?)
}

fn memory(layout: &Layout, blocks: usize) -> Fallible<(Arc<dyn MemoryTier>, BlockPool)> {
    let storage = SystemAllocator.allocate(blocks * layout.block_bytes())?;
    let tier = HostTier::new(storage, layout.block_bytes())?;
    Ok((Arc::new(tier), pool(blocks).build()?))
}

fn pool(blocks: usize) -> BlockPoolBuilder {
    BlockPool::builder()
        .capacity_blocks(blocks)
        .block_tokens(PAGE_TOKENS)
}

/// A model whose KV can be told from the tokens alone.
#[derive(Clone, Copy)]
struct Model {
    state: u64,
}

impl Model {
    fn new() -> Self {
        Self { state: 20_26 }
    }

    /// Computes the KV of one block of tokens, after all tokens before.
    fn prefill(&mut self, tokens: &[u32], kv: &mut [u8]) {
        for token in tokens {
            let mixed = (self.state ^ u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.state = mixed ^ (mixed >> 29);
        }
        let mut word_state = self.state;
        for word in kv.chunks_exact_mut(8) {
            word_state = word_state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(1);
            word.copy_from_slice(&word_state.to_le_bytes());
        }
    }
}

/// What one request took.
struct Served {
    prompt_blocks: usize,
    found_blocks: usize,
    onboarded_blocks: usize,
}

struct Engine {
    cache: TieredCache,
    slab: Arc<BlockSlab>,
}

impl Engine {
    fn open(folder: &Path) -> Fallible<Self> {
        let layout = layout()?;
        let (device, device_pool) = memory(&layout, G1_BLOCKS)?;
        let (host, host_pool) = memory(&layout, G2_BLOCKS)?;
        let config = SlabConfig::builder()
            .block_bytes(layout.block_bytes() as u64)
            .segment_bytes(1 << 20)
            .capacity_bytes(8 << 20)
            .build()?;
        let slab = Arc::new(BlockSlab::open(folder, config)?);
        let cache = TieredCache::builder(&layout, Salt::new(MODEL))
            .device(device, device_pool)
            .host(host, host_pool)
            .disk(Arc::clone(&slab) as Arc<dyn BlockStore>, pool(G3_BLOCKS))
            // Answers are kept in host memory for the next turn; only prompts, which others may share, go to disk.
            .admission(
                TierId::G3,
                Admission {
                    prompt_only: true,
                    ..Admission::default()
                },
            )
            .build()?;
        Ok(Self { cache, slab })
    }

    /// Prefills a prompt and decodes an answer, which is appended to it.
    fn serve(&self, sequence: &mut TokenSequence) -> Fallible<Served> {
        let hashes = sequence.sequence_hashes();
        // The deadline is that of the time to the first token: past it, computing is better than waiting.
        let matched = self.cache.match_blocks_within(
            hashes,
            &RequestOptions::default(),
            Duration::from_secs(5),
            &Cancellation::default(),
        );
        let served = Served {
            prompt_blocks: hashes.len(),
            found_blocks: matched.blocks.len(),
            onboarded_blocks: matched.onboarded_blocks,
        };
        let mut running = matched.blocks;
        self.check(sequence, &running)?;
        self.compute(sequence, &mut running, Origin::Prompt)?;
        for step in 0..ANSWER_TOKENS {
            let token = (sequence.tokens().len() * 31 + step) as u32;
            if sequence.push(token)?.is_some() {
                self.compute(sequence, &mut running, Origin::Answer)?;
            }
        }
        self.check(sequence, &running)?;
        // Dropping the blocks ends their use; they stay until the policy gives them up.
        Ok(served)
    }

    /// Fills and registers the full blocks of `sequence` that are not among `running`, and adds them to it.
    fn compute(
        &self,
        sequence: &TokenSequence,
        running: &mut ImmutableBlocks,
        origin: Origin,
    ) -> Fallible<()> {
        let hashes = sequence.sequence_hashes();
        let (known, missing) = hashes.split_at(running.len());
        if missing.is_empty() {
            return Ok(());
        }
        let fresh = self.cache.allocate_blocks(missing.len())?;
        let mut model = Model::new();
        // Brings the state of the model to where the known blocks end.
        model.prefill(&sequence.tokens()[..known.len() * PAGE_TOKENS], &mut []);
        for (slot, block) in fresh.slots().zip(sequence.blocks_from(known.len())) {
            // Host memory can be written in place; a device's is written by kernels, at `slot_addr`.
            let mut kv = self.cache.memory().lease(slot)?;
            model.prefill(block.tokens, &mut kv);
        }
        let mut complete = fresh.complete(missing)?;
        if let Some(&parent) = known.last() {
            complete = complete.with_parent(parent);
        }
        let options = OffloadOptions {
            origin,
            ..OffloadOptions::default()
        };
        let registered = self.cache.register_blocks(complete, options)?;
        running
            .append(registered)
            .map_err(|_| "they are of one pool")?;
        Ok(())
    }

    /// Compares blocks in the engine's memory with what their tokens say.
    fn check(&self, sequence: &TokenSequence, blocks: &ImmutableBlocks) -> Fallible<()> {
        let mut model = Model::new();
        let mut expected = vec![0; self.cache.block_bytes()];
        for (slot, block) in blocks.slots().zip(sequence.blocks_from(0)) {
            let read = SlotRead {
                slot,
                offset_bytes: 0,
                target: BufferMut::zeroed(expected.len(), 4096)?,
            };
            let found = self.cache.memory().read(vec![read]).wait()?;
            model.prefill(block.tokens, &mut expected);
            assert_eq!(
                found[0][..],
                expected[..],
                "block {}",
                block.identity.sequence_hash.position()
            );
        }
        Ok(())
    }

    fn print(&self, what: &str, served: &Served) {
        println!(
            "{what}: {} blocks of prompt, {} found, {} of those brought up from below",
            served.prompt_blocks, served.found_blocks, served.onboarded_blocks
        );
    }

    fn close(self) -> Fallible<()> {
        for (tier, moved) in &self.cache.traffic().tiers {
            println!(
                "  {tier}: {} blocks in, {} out, {} hits",
                moved.blocks_in, moved.blocks_out, moved.hits
            );
        }
        assert_eq!(self.cache.pool().status().in_use_blocks, 0);
        self.slab.close()?;
        Ok(())
    }
}

/// A system prompt that all share, and a question that nobody else asks.
fn prompt(tenant: &str, question: u32) -> Fallible<TokenSequence> {
    let salt = Salt::new(MODEL).with_tenant(tenant);
    let mut sequence = TokenSequence::new(salt, PAGE_TOKENS)?;
    let system: Vec<u32> = (0..64).collect();
    let own: Vec<u32> = (0..60).map(|token| question * 1000 + token).collect();
    sequence.extend(&system)?;
    sequence.extend(&own)?;
    Ok(sequence)
}

fn main() -> Fallible<()> {
    let folder = Path::new("kv-blocks");
    std::fs::create_dir(folder)?;
    let ran = run(folder);
    std::fs::remove_dir_all(folder)?;
    ran
}

fn run(folder: &Path) -> Fallible<()> {
    let engine = Engine::open(folder)?;

    let mut conversation = prompt("acme", 1)?;
    let first = engine.serve(&mut conversation)?;
    engine.print("first turn", &first);
    assert_eq!((first.prompt_blocks, first.found_blocks), (7, 0));
    // Between requests, whoever has time takes blocks down; here all that wait.
    engine.cache.drain();

    for question in 2..8 {
        let served = engine.serve(&mut prompt("acme", question)?)?;
        assert!(served.found_blocks >= 4, "the system prompt is shared");
        engine.cache.drain();
    }

    // The engine's memory has given up the conversation since; host memory has its answer too.
    conversation.extend(&[7; 40])?;
    let second = engine.serve(&mut conversation)?;
    engine.print("second turn", &second);
    assert!(second.found_blocks >= 9 && second.onboarded_blocks > 0);
    engine.cache.drain();

    let stranger = engine.serve(&mut prompt("evil", 1)?)?;
    engine.print("the same tokens of another tenant", &stranger);
    assert_eq!(stranger.found_blocks, 0);
    engine.close()?;

    // Memory is gone; what went to disk matches again, prompts and no answers.
    let engine = Engine::open(folder)?;
    let restored = engine
        .cache
        .reopened()
        .map_or(0, |found| found.restored_blocks);
    println!("restart: {restored} blocks on disk");
    let again = engine.serve(&mut prompt("acme", 1)?)?;
    engine.print("first turn after the restart", &again);
    assert_eq!((again.found_blocks, again.onboarded_blocks), (7, 7));
    engine.close()
}
