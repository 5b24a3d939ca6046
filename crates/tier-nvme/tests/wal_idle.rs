//! A log that has nothing to do uses no processor time.

#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tier_nvme::{EngineChoice, RealVolume, VolumeOptions, Wal, WalConfig};

/// Nanoseconds that the threads of this process have run so far, and how many of them are engines'.
///
/// Nothing else is in this process: the file has one test, whose own thread sleeps.
fn process_time() -> Result<(u64, usize), Box<dyn Error>> {
    let mut time_ns = 0;
    let mut engines = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let statistics = fs::read_to_string(task.join("schedstat"))?;
        let run_ns = statistics.split(' ').next().ok_or("empty schedstat")?;
        time_ns += run_ns.parse::<u64>()?;
        let name = fs::read_to_string(task.join("comm"))?;
        engines += usize::from(name.starts_with("stepwell-"));
    }
    Ok((time_ns, engines))
}

#[test]
fn idle_logs_sleep() -> Result<(), Box<dyn Error>> {
    const WATCHED: Duration = Duration::from_secs(1);
    let root = tempfile::tempdir()?;
    let mut logs = Vec::new();
    for (number, engine) in [EngineChoice::IoUring, EngineChoice::ThreadPool]
        .into_iter()
        .enumerate()
    {
        let directory = root.path().join(format!("log-{number}"));
        let options = VolumeOptions::default().with_engine(engine);
        let volume = Arc::new(RealVolume::create(directory, options)?);
        let log = Wal::open(volume, WalConfig::default().with_file_bytes(1 << 20))?;
        // Records that fill a file have the next one made.
        for number in 0..100_u8 {
            log.append(&[number; 20_000])?;
        }
        log.append_async(b"nobody waits for this one").wait()?;
        logs.push(log);
    }
    thread::sleep(Duration::from_millis(200));
    if process_time().is_err() {
        println!("skipped: this kernel has no scheduler statistics");
        return Ok(());
    }
    let (before_ns, _) = process_time()?;
    thread::sleep(WATCHED);
    let (after_ns, engines) = process_time()?;
    let used_ns = after_ns - before_ns;
    println!("{engines} threads of engines: {used_ns} ns in {WATCHED:?}");
    assert!(engines >= 2, "{engines} threads of engines were found");
    // This thread reads the statistics once.
    assert!(used_ns < 3_000_000, "idle logs used {used_ns} ns");
    drop(logs);
    Ok(())
}
