//! An engine that has nothing to do uses no processor time.

#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs;
use std::thread;
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::{BlockKey, BlockMeta, BlockPut, BlockStore};
use tier_nvme::{BlockSlab, EngineChoice, FileName, RealVolume, SlabConfig, Volume, VolumeOptions};

/// Nanoseconds that the threads of all engines have run so far, and how many threads there are.
///
/// Nothing else is in this process: the file has one test.
fn engine_time() -> Result<(u64, usize), Box<dyn Error>> {
    let mut time_ns = 0;
    let mut threads = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if !fs::read_to_string(task.join("comm"))?.starts_with("stepwell-") {
            continue;
        }
        let statistics = fs::read_to_string(task.join("schedstat"))?;
        let run_ns = statistics.split(' ').next().ok_or("empty schedstat")?;
        time_ns += run_ns.parse::<u64>()?;
        threads += 1;
    }
    Ok((time_ns, threads))
}

#[test]
fn idle_engines_sleep() -> Result<(), Box<dyn Error>> {
    const WATCHED: Duration = Duration::from_secs(1);
    let root = tempfile::tempdir()?;
    let mut files = Vec::new();
    for (number, engine) in [EngineChoice::IoUring, EngineChoice::ThreadPool]
        .into_iter()
        .enumerate()
    {
        let options = VolumeOptions::default().with_engine(engine);
        let volume = RealVolume::open(root.path(), options)?;
        let file = volume.create(&FileName::new(format!("file-{number}"))?, 1 << 20)?;
        file.write(0, BufferMut::zeroed(1 << 20, 4096)?).wait()?;
        file.sync().wait()?;
        files.push(file);
    }
    let config = SlabConfig::default()
        .with_block_bytes(4096)
        .with_capacity_bytes(1 << 20);
    let slab = BlockSlab::open(root.path().join("slab"), config)?;
    let put = BlockPut {
        key: BlockKey(1),
        meta: BlockMeta::EMPTY,
        payload: BufferMut::zeroed(4096, 4096)?,
    };
    for item in slab.put(vec![put]).wait()? {
        item?;
    }
    thread::sleep(Duration::from_millis(100));
    if engine_time().is_err() {
        println!("skipped: this kernel has no scheduler statistics");
        return Ok(());
    }
    let (before_ns, threads) = engine_time()?;
    thread::sleep(WATCHED);
    let (after_ns, _) = engine_time()?;
    let used_ns = after_ns - before_ns;
    println!("{threads} threads used {used_ns} ns in {WATCHED:?}");
    assert!(threads >= 8, "{threads} threads of engines were found");
    assert!(used_ns < 1_000_000, "idle engines used {used_ns} ns");
    Ok(())
}
