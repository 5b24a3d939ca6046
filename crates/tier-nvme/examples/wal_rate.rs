//! How many records a second become durable, beside how long a sync takes: `wal_rate [DIRECTORY [SECONDS]]`.

use std::collections::VecDeque;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use core_view::BufferMut;
use tier_nvme::{FileName, NvmeError, RealVolume, Volume, VolumeOptions, Wal, WalConfig};

const RECORD: [u8; 100] = [7; 100];

/// Median time to write a page and sync it.
fn sync_time(volume: &dyn Volume, time: Duration) -> Result<Duration, Box<dyn Error>> {
    let name = FileName::new("floor")?;
    let file = volume.create(&name, 1 << 20)?;
    let mut page = BufferMut::zeroed(4096, 4096)?;
    let mut times = Vec::new();
    let began = Instant::now();
    for at in (0..256).cycle() {
        let write_began = Instant::now();
        page = file.write(at * 4096, page).wait()?;
        file.sync().wait()?;
        times.push(write_began.elapsed());
        if began.elapsed() > time {
            break;
        }
    }
    volume.remove(&name)?;
    times.sort();
    Ok(times[times.len() / 2])
}

/// Appends from `writers` threads with `outstanding` records each, and counts what became durable.
fn rate(
    wal: &Wal,
    writers: usize,
    outstanding: usize,
    time: Duration,
) -> Result<f64, Box<dyn Error>> {
    let is_over = AtomicBool::new(false);
    let began = Instant::now();
    let counts = std::thread::scope(|scope| {
        let write = || -> Result<u64, NvmeError> {
            let (mut count, mut on_their_way) = (0, VecDeque::new());
            while !is_over.load(Ordering::Relaxed) {
                if outstanding == 1 {
                    wal.append(&RECORD)?;
                    count += 1;
                    continue;
                }
                while on_their_way.len() < outstanding {
                    on_their_way.push_back(wal.append_async(&RECORD));
                }
                if let Some(oldest) = on_their_way.pop_front() {
                    oldest.wait()?;
                    count += 1;
                }
            }
            Ok(count)
        };
        let threads: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
        std::thread::sleep(time);
        is_over.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| NvmeError::Closed)?)
            .sum::<Result<u64, NvmeError>>()
    })?;
    Ok(counts as f64 / began.elapsed().as_secs_f64())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let temporary = tempfile::tempdir()?;
    let directory = arguments
        .next()
        .map_or(temporary.path().to_owned(), PathBuf::from);
    let seconds = arguments.next().map_or(Ok(0.3), |text| text.parse())?;
    let time = Duration::from_secs_f64(seconds);
    let volume: Arc<dyn Volume> =
        Arc::new(RealVolume::create(directory, VolumeOptions::default())?);
    let wal = Wal::open(Arc::clone(&volume), WalConfig::default())?;
    println!(
        "{:>8} {:>12} {:>10} {:>12} {:>14} {:>14}",
        "writers", "outstanding", "sync ms", "records/s", "x 1/sync", "bytes/record"
    );
    for (writers, outstanding) in [
        (1, 1),
        (8, 1),
        (64, 1),
        (1, 16),
        (4, 16),
        (16, 16),
        (64, 16),
    ] {
        let sync = sync_time(&*volume, time)?;
        let before = wal.stats();
        let records = rate(&wal, writers, outstanding, time)?;
        let after = wal.stats();
        let bytes = (after.written_bytes - before.written_bytes) as f64
            / (after.records - before.records).max(1) as f64;
        println!(
            "{writers:>8} {outstanding:>12} {:>10.3} {records:>12.0} {:>14.1} {bytes:>14.0}",
            sync.as_secs_f64() * 1e3,
            records * sync.as_secs_f64(),
        );
        wal.truncate_before(wal.durable_lsn())?;
    }
    wal.close()?;
    Ok(())
}
