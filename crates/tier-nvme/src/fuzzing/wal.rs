//! Bytes for the structures of a write-ahead log, and a whole log with changed bytes.

use std::sync::OnceLock;

use super::image::edit;
use super::split_first;
use super::structures::{RESEAL, STORE_ID, page_of, sealed};
use crate::format::{
    ChainLink, GROUP_HEADER_BYTES, GroupHeader, GroupPlace, Records, WalFileHeader, crc32c,
    record_header,
};
use crate::sim::SimVolume;
use crate::{NvmeError, Wal, WalConfig};

const FILE_BYTES: u64 = 32 << 10;

/// Bits of an input's first byte for a whole log.
const KILLED: u8 = 1;
const READ_ONLY: u8 = 2;

pub(super) fn file_header(input: &[u8]) {
    if let Ok(header) = WalFileHeader::decode(&page_of(input)) {
        assert_eq!(WalFileHeader::decode(&header.encode()), Ok(header));
    }
}

pub(super) fn file_header_seeds() -> Vec<Vec<u8>> {
    let header = WalFileHeader {
        log_id: STORE_ID,
        number: 2,
        file_bytes: FILE_BYTES,
        start: ChainLink {
            sequence: 5,
            checksum: 77,
            next_lsn: 9,
        },
        incompatible: 0,
        compatible: 0,
    };
    sealed(vec![header.encode()])
}

/// Makes the checksum of a group's header right.
pub(super) fn seal_group(bytes: &mut [u8]) {
    if let Some(header) = bytes.get_mut(..GROUP_HEADER_BYTES) {
        let (fields, checksum) = header.split_at_mut(GROUP_HEADER_BYTES - 4);
        checksum.copy_from_slice(&crc32c(fields).to_le_bytes());
    }
}

pub(super) fn group(input: &[u8]) {
    let (mode, rest) = split_first(input);
    let mut bytes = rest.to_vec();
    if mode & RESEAL != 0 {
        seal_group(&mut bytes);
    }
    let word = |at: usize| {
        let field = bytes.get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_le_bytes(field))
    };
    let (Some(number), Some(offset_bytes)) = (word(24), word(32)) else {
        return;
    };
    let Ok(header) = GroupHeader::decode_of_any_log(&bytes, number, offset_bytes) else {
        return;
    };
    assert_eq!(
        GroupHeader::decode(&bytes, &header.place),
        Ok(header.clone())
    );
    // What is reserved is written as zero.
    let mut again = header.clone();
    let bytes_again = again.encode();
    assert_eq!(
        GroupHeader::decode(&bytes_again, &header.place),
        Ok(again.clone())
    );
    again.checksum = header.checksum;
    assert_eq!(again, header);
    if Records::check(&header, &bytes).is_ok()
        && let Ok(mut records) = Records::new(&header, &bytes)
    {
        let mut count = 0;
        while let Ok(Some(_)) = records.next_record() {
            count += 1;
        }
        assert_eq!(count, header.record_count);
    }
}

pub(super) fn group_seeds() -> Vec<Vec<u8>> {
    let mut bytes = vec![0; GROUP_HEADER_BYTES];
    let mut digest = Vec::new();
    for (lsn, payload) in [
        (9, &b"12345678"[..]),
        (10, b""),
        (11, b"abcdefghijklmnopqrstuvwx"),
    ] {
        let header = record_header(STORE_ID, lsn, payload);
        digest.extend_from_slice(&header);
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
    }
    let mut header = GroupHeader {
        place: GroupPlace {
            log_id: STORE_ID,
            number: 1,
            offset_bytes: 4096,
        },
        sequence: 4,
        synced_sequence: 3,
        first_lsn: 9,
        life: 1,
        previous_checksum: 2,
        record_count: 3,
        group_bytes: bytes.len() as u32,
        records_checksum: crc32c(&digest),
        checksum: 0,
    };
    bytes[..GROUP_HEADER_BYTES].copy_from_slice(&header.encode());
    vec![
        [&[0][..], &bytes].concat(),
        [&[RESEAL][..], &bytes].concat(),
    ]
}

fn config() -> WalConfig {
    WalConfig::new("W-")
        .with_file_bytes(FILE_BYTES)
        .with_spare_files(1)
}

/// A log of some files with one spare: closed, and killed.
fn images() -> &'static [SimVolume; 2] {
    static IMAGES: OnceLock<[SimVolume; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let volume = SimVolume::new(1);
        // Nothing fails on a volume that nobody has told to.
        let closed = build(&volume, true).map(|()| volume.fork(2));
        let killed = closed.as_ref().ok().map(|closed| closed.fork(3));
        if let Some(killed) = &killed {
            drop(build(killed, false));
        }
        let killed = killed.unwrap_or(volume.clone());
        [closed.unwrap_or(volume), killed.fork(4)]
    })
}

fn build(volume: &SimVolume, close: bool) -> Result<(), NvmeError> {
    let wal = Wal::open(volume.handle(), config())?;
    for len in [0, 10, 300, 9000, 4096, 12_000, 20_000, 7] {
        wal.append_batch(&[&vec![len as u8; len], b"beside"])?;
    }
    wal.truncate_before(wal.durable_lsn())?;
    for len in [9000, 30, 9000, 9000] {
        wal.append(&vec![len as u8; len])?;
    }
    if close {
        return wal.close();
    }
    volume.kill();
    Ok(())
}

pub(super) fn log(input: &[u8]) {
    let (mode, mut edits) = split_first(input);
    let [closed, killed] = images();
    let base = if mode & KILLED == 0 { closed } else { killed };
    let volume = base.fork(5);
    let files = volume.files();
    while let Some(rest) = edit(&volume, &files, edits) {
        edits = rest;
    }
    exercise(&volume, mode & READ_ONLY != 0);
}

/// Does everything that a user does; whatever is wrong is an error, and what is appended now is read.
fn exercise(volume: &SimVolume, read_only: bool) {
    let Ok(wal) = Wal::open(volume.handle(), config().with_read_only(read_only)) else {
        return;
    };
    if let Ok(records) = wal.replay(wal.first_lsn()) {
        let mut next = wal.first_lsn();
        for record in records.map_while(Result::ok) {
            assert_eq!(record.lsn, next);
            next = next.next();
        }
    }
    if !read_only && let Ok(lsn) = wal.append(&[5; 5000]) {
        let read = wal.replay(lsn).ok().and_then(|mut records| records.next());
        assert!(matches!(read, Some(Ok(record)) if record.payload == [5; 5000]));
        drop(wal.truncate_before(lsn));
    }
    drop(wal.close());
    drop(wal);
    drop(Wal::open(volume.handle(), config()));
}

pub(super) fn log_seeds() -> Vec<Vec<u8>> {
    const EDIT_RESEAL: u8 = 1;
    const EDIT_REMOVE: u8 = 2;
    let edits: [&[u8]; 6] = [
        &[],
        &[0, 0, 48, 0, 1, EDIT_RESEAL, 5],
        &[0, 1, 80, 0, 4, EDIT_RESEAL, 255, 255, 0, 0],
        &[
            1,
            1,
            40,
            0,
            8,
            EDIT_RESEAL,
            255,
            255,
            255,
            255,
            255,
            255,
            255,
            127,
        ],
        &[
            1,
            2,
            48,
            0,
            2,
            EDIT_RESEAL,
            9,
            0,
            0,
            0,
            0,
            0,
            0,
            EDIT_REMOVE,
        ],
        &[0, 1, 100, 0, 1, 0, 77],
    ];
    // Found by fuzzing: headers that claim that an older file begins behind a newer one.
    const FOUND: [&[u8]; 2] = [
        b"\x00I\x00M\x00\x01\xf5\x9c",
        b"\x01\x0f\x00B\x00\x40\x01P\x00\x01)\xff\x11\x00\xff\x00\x02}",
    ];
    (0..4)
        .flat_map(|mode| edits.map(|edits| [&[mode][..], edits].concat()))
        .chain(FOUND.map(<[u8]>::to_vec))
        .collect()
}
