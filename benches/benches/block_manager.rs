//! The block pool at its calls, one thread, and what surrounds them: identities of tokens and conversions of layouts.

#![expect(clippy::unwrap_used, reason = "a benchmark has no one to report to")]

use std::process::ExitCode;

use blockmgr::layout::{AxisOrder, ConversionPlan, LayoutConfig};
use blockmgr::{BlockPool, Salt, SequenceHash, TokenSequence};
use stepwell_benches::Bench;

/// Blocks of the pool.
const CAPACITY_BLOCKS: usize = 10_000;

/// Blocks of a request.
const REQUEST_BLOCKS: u32 = 24;

/// The finaliser of SplitMix64.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn chain(number: u64, blocks: u32) -> Vec<SequenceHash> {
    let hash = |position: u32| {
        let low = mixed(number << 32 | u64::from(position));
        SequenceHash::new(u128::from(low) << 64 | u128::from(mixed(!low)), position)
    };
    (0..blocks).map(hash).collect()
}

fn pool() -> BlockPool {
    BlockPool::builder()
        .capacity_blocks(CAPACITY_BLOCKS)
        .build()
        .unwrap()
}

/// Matches, allocates, registers and lets go; how many blocks were there.
fn serve(pool: &BlockPool, hashes: &[SequenceHash]) -> usize {
    let found = pool.match_sequence_hashes(hashes);
    let missing = &hashes[found.len()..];
    let fresh = pool.allocate_blocks(missing.len()).unwrap();
    let registered = pool.register_blocks(fresh.complete(missing).unwrap());
    drop(registered.unwrap());
    found.len()
}

fn calls(bench: &mut Bench) {
    let full = pool();
    let mut number = 0;
    while full.status().free_blocks > 0 {
        number += 1;
        serve(&full, &chain(number, REQUEST_BLOCKS));
    }
    let cached = pool();
    let warm = chain(0, REQUEST_BLOCKS);
    serve(&cached, &warm);
    let active = pool();
    let long = chain(1, 128);
    let fresh = active.allocate_blocks(long.len()).unwrap();
    let _held = active
        .register_blocks(fresh.complete(&long).unwrap())
        .unwrap();
    let cold = chain(u64::MAX >> 32, REQUEST_BLOCKS);

    let mut group = bench.group("calls of a pool of 10 000 blocks");
    group.case("24 blocks evicted and registered", move || {
        number += 1;
        serve(&full, &chain(number, REQUEST_BLOCKS))
    });
    group.case("24 cached blocks matched", || serve(&cached, &warm));
    group.case("none of 24 blocks matched", || {
        cached.match_sequence_hashes(&cold).len()
    });
    group.case("128 blocks in use matched", || {
        active.match_sequence_hashes(&long).len()
    });
    group.run();
}

fn identities(bench: &mut Bench) {
    let mut group = bench.group("identities");
    for block_tokens in [16, 64, 512] {
        let tokens: Vec<u32> = (0..4096).collect();
        let salt = Salt::new("model");
        group.case(&format!("4096 tokens, {block_tokens} a block"), move || {
            let mut sequence = TokenSequence::new(salt.clone(), block_tokens).unwrap();
            sequence.extend(&tokens).unwrap();
            sequence.sequence_hashes().len()
        });
        group.bytes(4 * 4096);
    }
    group.run();
}

fn conversions(bench: &mut Bench) {
    let layout = |order| {
        let model = LayoutConfig::builder()
            .num_layers(8)
            .outer_dim(2)
            .page_size(16);
        let model = model.heads(8).head_dim(128).dtype_bytes(2).num_blocks(1);
        model.order(order).build().unwrap()
    };
    let source = layout(AxisOrder::NHD);
    let bytes = source.block_bytes();
    let memory = vec![7u8; bytes];
    let mut group = bench.group("a block converted");
    for (name, order) in [
        ("to the same layout", AxisOrder::NHD),
        ("to HND", AxisOrder::HND),
        ("to universal", AxisOrder::UNIVERSAL),
    ] {
        let plan = ConversionPlan::new(&source, 0, &layout(order), 0).unwrap();
        let memory = &memory;
        let mut target = vec![0u8; bytes];
        group.case(name, move || {
            plan.copy(&[memory], &mut [&mut target]).unwrap()
        });
        group.bytes(bytes as u64);
    }
    group.run();
}

fn main() -> ExitCode {
    let mut bench = Bench::from_args("block_manager");
    calls(&mut bench);
    identities(&mut bench);
    conversions(&mut bench);
    if bench.finish() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
