//! Directories that are not what the log left.

use std::error::Error;

use tier_nvme::sim::SimVolume;
use tier_nvme::{FileName, Lsn, NvmeError, Wal, WalConfig};

use super::{config, payloads};

const PAGE: u64 = 4096;

/// A log of several files, closed.
fn written() -> SimVolume {
    let disk = SimVolume::new(1);
    let wal = Wal::open(disk.handle(), config()).unwrap();
    for number in 0..40_u8 {
        wal.append(&[number; 5000]).unwrap();
    }
    wal.close().unwrap();
    drop(wal);
    disk
}

fn name(number: u64) -> String {
    format!("LOG-{number:016x}")
}

fn open(disk: &SimVolume) -> Result<Wal, NvmeError> {
    Wal::open(disk.handle(), config())
}

#[test]
fn a_missing_file_is_noticed() -> Result<(), Box<dyn Error>> {
    let disk = written();
    let middle = FileName::new(name(2))?;
    disk.handle().remove(&middle)?;
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, NvmeError::Corrupt { .. }), "{error:?}");
    // The oldest one: the log begins later, and whoever needs what was there is told.
    let disk = written();
    disk.handle().remove(&FileName::new(name(1))?)?;
    let wal = open(&disk)?;
    assert!(wal.first_lsn() > Lsn::FIRST);
    assert!(matches!(
        wal.replay(Lsn::FIRST),
        Err(NvmeError::Corrupt { .. })
    ));
    // All: what was there at a checkpoint is asked for.
    let disk = written();
    for (file, _) in disk.files() {
        disk.handle().remove(&FileName::new(file)?)?;
    }
    let wal = open(&disk)?;
    assert!(wal.recovery_report().created);
    assert!(matches!(
        wal.replay(Lsn::new(30)),
        Err(NvmeError::Corrupt { .. })
    ));
    Ok(())
}

#[test]
fn a_damaged_header_of_a_file_is_done_without() -> Result<(), Box<dyn Error>> {
    for number in [1, 2] {
        let disk = written();
        disk.overwrite(&name(number), 0, &[0; 4096]);
        let wal = open(&disk)?;
        assert_eq!(wal.recovery_report().headers_damaged, 1);
        assert_eq!(payloads(&wal, Lsn::FIRST)?.len(), 40);
        // The first group's header with it: nothing says what the file is.
        let disk = written();
        disk.overwrite(&name(number), 0, &[0; 4096 + 96]);
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, NvmeError::Corrupt { .. }), "{error:?}");
    }
    Ok(())
}

#[test]
fn files_of_another_log_and_of_another_time_are_refused() -> Result<(), Box<dyn Error>> {
    // The same file of another log.
    let (disk, other) = (written(), SimVolume::new(77));
    let wal = open(&other)?;
    for number in 0..40_u8 {
        wal.append(&[number; 5000])?;
    }
    drop(wal);
    disk.overwrite(&name(2), 0, &other.bytes_of(&name(2)).unwrap());
    let error = open(&disk).unwrap_err();
    assert!(matches!(error, NvmeError::Corrupt { .. }), "{error:?}");
    // A group of this log in another's place, which a misdirected write leaves.
    let disk = written();
    let group = disk.bytes_of(&name(1)).unwrap()[PAGE as usize..3 * PAGE as usize].to_vec();
    disk.overwrite(&name(1), 3 * PAGE, &group);
    let wal = open(&disk)?;
    let records: Vec<_> = wal.replay(Lsn::FIRST)?.collect();
    assert!(
        matches!(records.last(), Some(Err(NvmeError::Corrupt { .. }))),
        "{}",
        records.len()
    );
    assert_eq!(records.len(), 2, "it ends after an error");
    Ok(())
}

#[test]
fn newer_versions_and_unknown_features_are_told_apart() -> Result<(), Box<dyn Error>> {
    let disk = written();
    change_header(&disk, &name(1), 8, &[2]);
    assert!(matches!(
        open(&disk),
        Err(NvmeError::NewerVersion { found: 2, .. })
    ));
    let disk = written();
    change_header(&disk, &name(1), 16, &[4]);
    assert!(matches!(
        open(&disk),
        Err(NvmeError::UnknownFeatures { bits: 4, .. })
    ));
    let disk = written();
    change_header(&disk, &name(1), 24, &[4]);
    let wal = open(&disk)?;
    assert!(matches!(wal.append(b"x"), Err(NvmeError::ReadOnly { .. })));
    assert_eq!(payloads(&wal, Lsn::FIRST)?.len(), 40);
    Ok(())
}

/// Bit by bit, to have no part in what is tested.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// Puts `bytes` into the header of a file, and makes its checksum right.
fn change_header(disk: &SimVolume, file: &str, at: usize, bytes: &[u8]) {
    let mut page = disk.bytes_of(file).unwrap()[..4096].to_vec();
    page[at..at + bytes.len()].copy_from_slice(bytes);
    let checksum = crc32c(&page[..4092]);
    page[4092..].copy_from_slice(&checksum.to_le_bytes());
    disk.overwrite(file, 0, &page);
}

#[test]
fn the_same_records_again_do_not_bring_back_what_was_discarded() -> Result<(), Box<dyn Error>> {
    let disk = SimVolume::new(1);
    let manual = || {
        WalConfig::new("LOG-")
            .with_file_bytes(64 << 10)
            .with_manual_steps(true)
    };
    let wal = Wal::open(disk.handle(), manual())?;
    let first = wal.append_async(&[1; 100]);
    assert!(wal.step(true));
    let second = wal.append_async(&[2; 100]);
    assert!(wal.step(true), "both are written, and neither is synced");
    assert!(!first.is_done() && !second.is_done());
    disk.kill();
    drop((first, second, wal));
    // The first one is torn.
    assert!(disk.overwrite(&name(1), PAGE + 96 + 16, &[9; 50]));
    let wal = Wal::open(disk.handle(), manual())?;
    assert_eq!(wal.recovery_report().tail_groups_discarded, 2);
    assert_eq!(wal.next_lsn(), Lsn::FIRST);
    // The caller appends it again, and the process dies.
    wal.append(&[1; 100])?;
    disk.kill();
    drop(wal);
    let wal = Wal::open(disk.handle(), manual())?;
    assert_eq!(payloads(&wal, Lsn::FIRST)?, [vec![1; 100]]);
    Ok(())
}

#[test]
fn a_file_that_begins_behind_a_newer_one_is_refused() {
    let disk = written();
    change_header(&disk, &name(2), 72, &(1_u64 << 40).to_le_bytes());
    let error = open(&disk).unwrap_err();
    let NvmeError::Corrupt { location, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*location, name(3));
}
