//! Groups on their way at the same time, step by step.

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultRates, Latency, SimVolume, Survival};
use tier_nvme::{Lsn, Wal, WalConfig};

use super::payloads;

fn config() -> WalConfig {
    WalConfig::new("LOG-")
        .with_file_bytes(2 << 20)
        .with_manual_steps(true)
}

fn set_latency_ms(volume: &SimVolume, latency_ms: u64) {
    let time = Duration::from_millis(latency_ms);
    volume.set_latency(Some(Latency::between(time, time)));
}

/// Nobody syncs what was written when the sync before it failed; its writers and a close must hear of it.
#[test]
fn a_sync_that_fails_while_the_next_group_is_written_ends_both() -> Result<(), Box<dyn Error>> {
    let volume = SimVolume::new(1);
    let wal = Wal::open(volume.handle(), config())?;
    wal.append(b"kept")?;
    set_latency_ms(&volume, 1);
    let first = wal.append_async(b"being synced");
    assert!(wal.step(false) && volume.step() && wal.step(false));
    set_latency_ms(&volume, 10);
    // Long enough to be written beside a sync.
    let second = wal.append_async(&[2; 300 << 10]);
    assert!(wal.step(false) && volume.in_flight() == 2);
    volume.set_faults(FaultRates {
        sync_errors: 1000,
        ..FaultRates::default()
    });
    assert!(volume.step() && volume.in_flight() == 1);
    volume.set_faults(FaultRates::default());
    assert!(volume.step() && volume.in_flight() == 0);

    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let closed = wal.close().map_err(|error| error.kind());
        tell.send((closed, first.wait(), second.wait())).unwrap();
    });
    let (closed, first, second) = told.recv_timeout(Duration::from_secs(60))?;
    assert_eq!(closed, Err(ErrorKind::Poisoned));
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Io);

    volume.crash_keeping(Survival::Nothing);
    let wal = Wal::open(volume.handle(), config())?;
    // A sync that failed may have made something durable.
    let found = payloads(&wal, Lsn::FIRST)?;
    assert!(found.len() <= 2 && found[0] == b"kept");
    Ok(())
}

#[test]
fn a_batch_of_almost_a_whole_group_goes_behind_other_records() -> Result<(), Box<dyn Error>> {
    let config = || {
        config()
            .with_file_bytes(80 << 20)
            .with_buffer_bytes(256 << 20)
            .with_prefill(false)
            .with_spare_files(0)
    };
    let record = |number: usize| vec![number as u8; 1 << 20];
    for survival in [Survival::Nothing, Survival::Everything] {
        let volume = SimVolume::new(1);
        let wal = Wal::open(volume.handle(), config())?;
        let before: Vec<_> = (0..3).map(|n| wal.append_async(&record(n))).collect();
        let batch: Vec<_> = (3..65).map(record).collect();
        let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        let together = wal.append_batch_async(&batch);
        assert!(before.iter().all(|transfer| !transfer.is_done()));
        // Each is too large to be put off: both are written, and share no group.
        let mut steps = 0;
        while wal.stats().groups < 2 {
            assert!(wal.step(false));
            steps += 1;
        }
        assert!(steps >= 2 && !together.is_done());
        volume.crash_keeping(survival);
        let durable = wal.durable_lsn().get() as usize - 1;
        drop((wal, before, together));
        let wal = Wal::open(volume.handle(), config())?;
        let found = payloads(&wal, Lsn::FIRST)?;
        let expected = match survival {
            Survival::Everything => 65,
            _ => durable,
        };
        assert!(durable <= 3 && found.len() == expected);
        let is_right = |(number, found): (usize, &Vec<u8>)| *found == record(number);
        assert!(found.iter().enumerate().all(is_right));
    }
    Ok(())
}
