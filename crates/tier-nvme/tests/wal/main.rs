//! The write-ahead log on real directories, by many threads, and against what should not be there.
#![expect(clippy::unwrap_used, reason = "tests")]

mod hostile;
mod pipeline;
mod pressed;
mod slow;

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use core_view::contract::ErrorKind;
use tier_nvme::sim::{FaultRates, SimVolume};
use tier_nvme::{
    Lsn, NvmeError, NvmeStore, Overload, RealVolume, StorageConfig, Volume, VolumeOptions, Wal,
    WalConfig,
};

fn volume(directory: &tempfile::TempDir) -> Arc<dyn Volume> {
    let options = VolumeOptions::from_test_environment().unwrap();
    Arc::new(RealVolume::open(directory.path(), options).unwrap())
}

fn config() -> WalConfig {
    WalConfig::new("LOG-").with_file_bytes(64 << 10)
}

fn payloads(wal: &Wal, from: Lsn) -> Result<Vec<Vec<u8>>, NvmeError> {
    wal.replay(from)?
        .map(|record| Ok(record?.payload))
        .collect()
}

#[test]
fn writers_share_syncs_and_each_finds_its_records_in_order() -> Result<(), Box<dyn Error>> {
    const WRITERS: u8 = 16;
    const EACH: u32 = 40;
    let directory = tempfile::tempdir()?;
    let wal = Wal::open(volume(&directory), config())?;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let wal = &wal;
            scope.spawn(move || {
                let record = |number: u32| [&[writer][..], &number.to_le_bytes()].concat();
                for number in 0..EACH {
                    wal.append(&record(number)).unwrap();
                }
                // The others with several outstanding, which become durable in order.
                let numbers = EACH..2 * EACH;
                let transfers: Vec<_> = numbers.map(|n| wal.append_async(&record(n))).collect();
                let lsns = transfers
                    .into_iter()
                    .map(|transfer| transfer.wait().unwrap());
                assert!(lsns.is_sorted());
            });
        }
    });
    let stats = wal.stats();
    assert_eq!(stats.records, u64::from(WRITERS) * u64::from(2 * EACH));
    assert!(stats.syncs < stats.records, "{stats:?}");
    assert!(stats.files > 1 || stats.groups < 16, "{stats:?}");
    wal.close()?;

    let wal = Wal::open(volume(&directory), config())?;
    assert!(wal.recovery_report().clean);
    let mut next = BTreeMap::new();
    for record in payloads(&wal, Lsn::FIRST)? {
        let (writer, number) = record.split_first().unwrap();
        let expected: &mut u32 = next.entry(*writer).or_default();
        assert_eq!(number, expected.to_le_bytes());
        *expected += 1;
    }
    assert!(next.len() == usize::from(WRITERS) && next.values().all(|&count| count == 2 * EACH));
    Ok(())
}

#[test]
fn a_log_lives_beside_a_store() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    for round in 0..3_u8 {
        let config = StorageConfig::default().with_segment_bytes(1 << 20);
        let store = NvmeStore::new(directory.path(), config)?;
        let edges = Wal::open_beside(
            store.volume(),
            WalConfig::new("EDGES-").with_file_bytes(1 << 20),
        )?;
        let nodes = Wal::open_beside(
            store.volume(),
            WalConfig::new("NODES-").with_file_bytes(1 << 20),
        )?;
        assert_eq!(payloads(&edges, Lsn::FIRST)?.len(), usize::from(round));
        edges.append(&[round])?;
        nodes.append(&[round, round])?;
        store.write_aligned([round], &[round])?;
        assert_eq!(
            payloads(&nodes, Lsn::new(u64::from(round) + 1))?,
            [[round, round]]
        );
        edges.close()?;
        nodes.close()?;
        assert!(store.verify()?.is_whole());
        store.close()?;
    }
    Ok(())
}

#[test]
fn a_second_user_is_refused() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let wal = Wal::open(volume(&directory), config())?;
    let second = Wal::open(volume(&directory), config()).unwrap_err();
    assert!(matches!(second, NvmeError::Locked { .. }), "{second:?}");
    wal.close()?;
    assert!(matches!(wal.append(b"late"), Err(NvmeError::Closed)));
    assert!(matches!(wal.replay(Lsn::FIRST), Err(NvmeError::Closed)));
    assert!(matches!(
        wal.truncate_before(Lsn::FIRST),
        Err(NvmeError::Closed)
    ));
    wal.close()?;
    Wal::open(volume(&directory), config())?.append(b"next")?;
    Ok(())
}

#[test]
fn a_full_disk_is_an_error_before_anything_is_written() -> Result<(), Box<dyn Error>> {
    let disk = SimVolume::new(1);
    let wal = Wal::open(disk.handle(), config())?;
    disk.set_capacity(64 << 10);
    let mut count = 0;
    let error = loop {
        match wal.append(&[3; 9000]) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, NvmeError::NoSpace { .. }), "{error:?}");
    assert!(count > 3);
    assert_eq!(wal.next_lsn(), Lsn::new(count + 1));
    assert!(
        wal.stats().files_refused > 0,
        "making a file ahead failed too"
    );
    wal.append(&[4; 10])?;
    disk.set_capacity(u64::MAX);
    wal.append(&[5; 9000])?;
    assert_eq!(payloads(&wal, Lsn::FIRST)?.len() as u64, count + 2);
    Ok(())
}

#[test]
fn what_can_not_be_appended_is_said_at_once() -> Result<(), Box<dyn Error>> {
    let wal = Wal::open(SimVolume::new(1).handle(), config())?;
    for payloads in [
        &[][..],
        &[&[0; 60 << 10][..]],
        &[&[0; 30 << 10][..], &[0; 30 << 10]],
    ] {
        let error = wal.append_batch(payloads).unwrap_err();
        assert!(matches!(error, NvmeError::Invalid { .. }), "{error:?}");
    }
    assert_eq!(wal.next_lsn(), Lsn::FIRST);
    let largest = vec![1; (56 << 10) - 96 - 16];
    assert_eq!(wal.append(&largest)?, Lsn::FIRST);
    assert!(payloads(&wal, Lsn::FIRST)? == [largest]);
    for config in [
        WalConfig::new(""),
        WalConfig::new("a/b"),
        WalConfig::new(".hidden"),
        WalConfig::new("SEGMENT-"),
        WalConfig::new("x".repeat(80)),
        WalConfig::new("x").with_file_bytes(4096),
        WalConfig::new("x").with_file_bytes((64 << 10) + 1),
        WalConfig::new("x").with_file_bytes(2 << 30),
    ] {
        let error = Wal::open(SimVolume::new(1).handle(), config).unwrap_err();
        assert!(matches!(error, NvmeError::Invalid { .. }), "{error:?}");
    }
    Ok(())
}

#[test]
fn overload_is_waited_for_or_refused() -> Result<(), Box<dyn Error>> {
    let config = config()
        .with_file_bytes(8 << 20)
        .with_buffer_bytes(256 << 10)
        .with_manual_steps(true)
        .with_overload(Overload::Refuse);
    let wal = Wal::open(SimVolume::new(1).handle(), config)?;
    let mut transfers = Vec::new();
    let refused = loop {
        let transfer = wal.append_async(&[1; 50_000]);
        if transfer.is_done() {
            break transfer.wait().unwrap_err();
        }
        transfers.push(transfer);
    };
    assert_eq!(refused.kind(), ErrorKind::Busy);
    assert!(transfers.len() >= 3 && wal.stats().buffer_bytes <= 256 << 10);
    while wal.step(false) {}
    for transfer in transfers {
        transfer.wait()?;
    }
    assert_eq!((wal.stats().stalls, wal.stats().buffer_bytes), (1, 0));
    Ok(())
}

#[test]
fn a_failed_sync_ends_the_log_until_it_is_opened_again() -> Result<(), Box<dyn Error>> {
    let disk = SimVolume::new(5);
    let wal = Wal::open(disk.handle(), config())?;
    wal.append(b"kept")?;
    disk.set_faults(FaultRates {
        sync_errors: 1000,
        ..FaultRates::default()
    });
    let error = wal.append(b"unknown").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    disk.set_faults(FaultRates::default());
    for _ in 0..2 {
        assert_eq!(
            wal.append(b"refused").unwrap_err().kind(),
            ErrorKind::Poisoned
        );
    }
    assert_eq!(payloads(&wal, Lsn::FIRST)?, [b"kept"]);
    assert_eq!(wal.close().unwrap_err().kind(), ErrorKind::Poisoned);
    let wal = Wal::open(disk.handle(), config())?;
    assert_eq!(payloads(&wal, Lsn::FIRST)?[0], b"kept");
    wal.append(b"goes on")?;
    Ok(())
}

#[test]
fn a_reader_keeps_the_files_that_it_reads() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let wal = Wal::open(volume(&directory), config())?;
    for number in 0..40_u8 {
        wal.append(&[number; 5000])?;
    }
    let mut reader = wal.replay(Lsn::FIRST)?;
    assert_eq!(reader.next().unwrap()?.payload[0], 0);
    let files = wal.truncate_before(wal.durable_lsn())?;
    assert!(files > 2 && wal.first_lsn() > Lsn::FIRST);
    for number in 40..80_u8 {
        wal.append(&[number; 5000])?;
    }
    for number in 1..40 {
        assert_eq!(reader.next().unwrap()?.payload, [number; 5000]);
    }
    assert!(reader.next().is_none());
    let gone = wal.replay(Lsn::FIRST).unwrap_err();
    assert!(matches!(gone, NvmeError::Corrupt { .. }));
    drop(reader);
    assert!(wal.truncate_before(wal.durable_lsn())? > 0);
    for number in 0..40_u8 {
        wal.append(&[number; 5000])?;
    }
    assert!(wal.stats().files_recycled > 0);
    Ok(())
}

#[test]
fn a_log_for_reading_changes_nothing() -> Result<(), Box<dyn Error>> {
    let disk = SimVolume::new(2);
    let reading = || config().with_read_only(true);
    let none = Wal::open(disk.handle(), reading()).unwrap_err();
    assert!(matches!(none, NvmeError::NotAStore { .. }), "{none:?}");
    let wal = Wal::open(disk.handle(), config())?;
    wal.append(b"one")?;
    disk.kill();
    drop(wal);
    let before = disk.operations();
    let wal = Wal::open(disk.handle(), reading())?;
    assert_eq!(payloads(&wal, Lsn::FIRST)?, [b"one"]);
    assert!(matches!(
        wal.append(b"two"),
        Err(NvmeError::ReadOnly { .. })
    ));
    assert!(matches!(
        wal.truncate_before(Lsn::new(2)),
        Err(NvmeError::ReadOnly { .. })
    ));
    wal.close()?;
    assert_eq!(disk.operations(), before);
    Ok(())
}
