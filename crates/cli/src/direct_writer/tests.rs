use std::io::Read;

use super::*;

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (i % 251) as u8 ^ (i >> 16) as u8)
        .collect()
}

/// Writes all of it in pieces, and reads the file back.
fn through(file: &File, bytes: &[u8], piece_len: usize) -> Vec<u8> {
    let mut writer = DirectWriter::new(file.try_clone().unwrap());
    bytes
        .chunks(piece_len)
        .for_each(|piece| writer.write_all(piece).unwrap());
    writer.finish().unwrap();
    set_direct(file, false).unwrap();
    let mut found = Vec::new();
    (&*file).read_to_end(&mut found).unwrap();
    found
}

#[test]
fn files_of_any_length_come_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [0, 1, 4096, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 1];
    let longer = [9 * BLOCK_LEN, 9 * BLOCK_LEN + 4097, 40 * BLOCK_LEN + 77];
    for len in lengths.into_iter().chain(longer) {
        for piece_len in [1 << 20, 999_983] {
            let file = tempfile::tempfile_in(&folder).unwrap();
            let bytes = pattern(len);
            assert!(
                through(&file, &bytes, piece_len) == bytes,
                "{len} by {piece_len}"
            );
            assert_eq!(file.metadata().unwrap().len(), len as u64);
        }
    }
}

#[test]
fn a_file_system_in_memory_will_do() {
    let Ok(file) = tempfile::tempfile_in("/dev/shm") else {
        return;
    };
    let bytes = pattern(5 * BLOCK_LEN + 5);
    assert!(through(&file, &bytes, 1 << 20) == bytes);
}

#[test]
fn a_write_that_fails_is_told() {
    // Every write to it finds the disk full.
    let file = File::options().write(true).open("/dev/full").unwrap();
    let mut writer = DirectWriter::new(file.try_clone().unwrap());
    let block = pattern(BLOCK_LEN);
    let written = (0..2 * BLOCKS).try_for_each(|_| writer.write_all(&block));
    let outcome = written.and_then(|()| writer.finish());
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::StorageFull);

    let mut short = DirectWriter::new(file);
    short.write_all(b"short").unwrap();
    assert_eq!(
        short.finish().unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
}

#[test]
fn a_writer_may_be_given_up() {
    let file = tempfile::tempfile().unwrap();
    let mut writer = DirectWriter::new(file.try_clone().unwrap());
    writer.write_all(&pattern(3 * BLOCK_LEN + 1)).unwrap();
    drop(writer);
}
