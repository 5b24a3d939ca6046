//! How fast a slab stores and fetches blocks, beside a bare loop over one file of the same volume, in turn.
//!
//! `slab_rate [DIRECTORY]`; a temporary directory if none is given.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore, Transfer};
use tier_nvme::{BlockSlab, FileName, RealVolume, SlabConfig, Volume, VolumeFile, VolumeOptions};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Blocks and batches in bytes, and how many rounds.
const WORK: [(usize, usize, u128); 3] = [
    (1 << 20, 64 << 20, 6),
    (64 << 10, 64 << 20, 6),
    (4 << 10, 4 << 20, 60),
];
const WRITE_BYTES: usize = 2 << 20;
const READS_IN_FLIGHT: usize = 8;

fn buffers(block_bytes: usize, count: usize) -> Outcome<Vec<BufferMut>> {
    let mut slab = BufferMut::zeroed(block_bytes * count, 4096)?;
    for (word, bytes) in (0_u64..).zip(slab.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    Ok(slab.split_into(block_bytes))
}

/// Writes and syncs the buffers one after the other.
fn write_bare(
    file: &dyn VolumeFile,
    offset_bytes: u64,
    buffers: Vec<BufferMut>,
) -> Outcome<Vec<BufferMut>> {
    let block_bytes = buffers.first().map_or(1, BufferMut::len);
    let mut at = offset_bytes;
    let mut writes = Vec::new();
    let mut rest = buffers.into_iter().peekable();
    while rest.peek().is_some() {
        let run: Vec<_> = rest
            .by_ref()
            .take((WRITE_BYTES / block_bytes).max(1))
            .collect();
        let len = (run.len() * block_bytes) as u64;
        writes.push(file.write_vectored(at, run));
        at += len;
    }
    let mut back = Vec::new();
    for write in writes {
        back.extend(write.wait()?);
    }
    file.sync().wait()?;
    Ok(back)
}

/// Reads with several in flight; the buffers come back in any order.
fn read_all<T>(
    targets: Vec<BufferMut>,
    start: impl Fn(usize, BufferMut) -> Transfer<T>,
    take: impl Fn(T) -> Outcome<BufferMut>,
) -> Outcome<Vec<BufferMut>>
where
    T: Send + 'static,
{
    let mut flying = std::collections::VecDeque::new();
    let mut back = Vec::new();
    for (i, target) in targets.into_iter().enumerate() {
        if flying.len() >= READS_IN_FLIGHT
            && let Some(oldest) = flying.pop_front()
        {
            let oldest: Transfer<T> = oldest;
            back.push(take(oldest.wait()?)?);
        }
        flying.push_back(start(i, target));
    }
    for read in flying {
        back.push(take(read.wait()?)?);
    }
    Ok(back)
}

fn median(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN)
}

fn measure(path: &Path, (block_bytes, batch_bytes, rounds): (usize, usize, u128)) -> Outcome<()> {
    let count = batch_bytes / block_bytes;
    // Three batches, and a log.
    let slab_bytes = 3 * batch_bytes as u64 + (4 << 20);
    let volume = RealVolume::create(path.join("bare"), VolumeOptions::default())?;
    let file = volume.create(&FileName::new("file")?, batch_bytes as u64)?;
    let config = SlabConfig::default()
        .with_block_bytes(block_bytes as u64)
        .with_capacity_bytes(slab_bytes)
        .with_segment_bytes(slab_bytes);
    let slab = Arc::new(BlockSlab::open(path.join("slab"), config)?);
    let mut blocks = buffers(block_bytes, count)?;
    println!("blocks of {block_bytes} bytes, batches of {count}; MB/s bare, slab, ratio");
    let (mut put_ratios, mut get_ratios) = (Vec::new(), Vec::new());
    // The first three rounds of the slab write to space that was never written, the first of the bare loop.
    for round in 0..=rounds {
        let rate = |since: Instant| batch_bytes as f64 / 1e6 / since.elapsed().as_secs_f64();
        let since = Instant::now();
        blocks = write_bare(&*file, 0, blocks)?;
        let bare_put = rate(since);
        let puts = blocks.into_iter().enumerate().map(|(i, payload)| BlockPut {
            key: BlockKey(round % 2 * count as u128 + i as u128),
            meta: BlockMeta::EMPTY,
            payload,
        });
        let puts: Vec<_> = puts.collect();
        let since = Instant::now();
        let items = slab.put(puts).wait()?;
        let slab_put = rate(since);
        blocks = items.into_iter().collect::<Result<_, _>>()?;
        let since = Instant::now();
        let read = |i: usize, target| file.read((i * block_bytes) as u64, target);
        blocks = read_all(blocks, read, Ok)?;
        let bare_get = rate(since);
        let since = Instant::now();
        let get = |i: usize, target| {
            let key = BlockKey(round % 2 * count as u128 + i as u128);
            slab.get(vec![BlockGet { key, target }])
        };
        blocks = read_all(blocks, get, |mut items| Ok(items.remove(0)?.target))?;
        let slab_get = rate(since);
        if round > 3 {
            put_ratios.push(slab_put / bare_put);
            get_ratios.push(slab_get / bare_get);
        }
        println!(
            "  put {bare_put:6.0} {slab_put:6.0} {:5.2}   get {bare_get:6.0} {slab_get:6.0} {:5.2}",
            slab_put / bare_put,
            slab_get / bare_get
        );
    }
    println!(
        "medians: put {:.2} get {:.2}",
        median(put_ratios),
        median(get_ratios)
    );
    slab.close()?;
    Ok(())
}

fn main() -> Outcome<()> {
    let temporary = tempfile::tempdir()?;
    let given = std::env::args().nth(1);
    let root = given.map_or_else(|| temporary.path().to_owned(), Into::into);
    for work in WORK {
        let directory = tempfile::tempdir_in(&root)?;
        measure(directory.path(), work)?;
    }
    Ok(())
}
