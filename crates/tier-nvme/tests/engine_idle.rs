//! An engine that has nothing to do uses no processor time.

#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs;
use std::thread;
use std::time::Duration;

use core_view::BufferMut;
use tier_nvme::{EngineChoice, FileName, RealVolume, Volume, VolumeOptions};

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
