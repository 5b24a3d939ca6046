//! A whole store with changed bytes: opened, read, checked, written.

use std::sync::OnceLock;

use super::split_first;
use super::structures::{seal_batch_header, seal_page};
use crate::format::{BlockWriter, CheckpointHeader, PAGE_BYTES};
use crate::sim::SimVolume;
use crate::{NvmeError, NvmeStore, StorageConfig, WriteBatch};

const SEGMENT_BYTES: u64 = 64 << 10;

/// Most bytes that one edit changes.
const EDIT_BYTES_MAX: usize = 64;

/// Bits of an input's first byte.
const KILLED: u8 = 1;
const READ_ONLY: u8 = 2;

/// Bits of an edit's flags.
const RESEAL: u8 = 1;
const REMOVE: u8 = 2;

fn config() -> StorageConfig {
    StorageConfig::default().with_segment_bytes(SEGMENT_BYTES)
}

/// A store with values of all sizes, deletes, checkpoints and a log behind them: closed, and killed.
fn images() -> &'static [SimVolume; 2] {
    static IMAGES: OnceLock<[SimVolume; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let volume = SimVolume::new(1);
        // Nothing fails on a volume that nobody has told to.
        let closed = build(&volume).map(|()| volume.fork(2));
        let killed = closed
            .as_ref()
            .map_err(NvmeError::clone)
            .and_then(|closed| extend(&closed.fork(3)));
        [closed.unwrap_or(volume.clone()), killed.unwrap_or(volume)]
    })
}

fn build(volume: &SimVolume) -> Result<(), NvmeError> {
    let store = NvmeStore::on_volume(volume.handle(), config())?;
    for (i, len) in [0, 10, 300, 4096, 5000, 30_000, 9000]
        .into_iter()
        .enumerate()
    {
        let value = vec![i as u8; len];
        let batch = WriteBatch::new().put(format!("key-{i}"), value.clone());
        store.write_batch(batch.put(format!("other-{i}"), vec![1; 20]))?;
    }
    store.delete("key-2")?;
    store.checkpoint()?;
    store.write_aligned("key-1", &[9; 700])?;
    store.close()
}

/// The same store with a log behind the checkpoint, its process killed.
fn extend(volume: &SimVolume) -> Result<SimVolume, NvmeError> {
    let store = NvmeStore::on_volume(volume.handle(), config())?;
    for i in 0..6_u8 {
        let batch = WriteBatch::new().put([b'n', i], vec![i; 3000]);
        store.write_batch(batch.delete(format!("other-{i}")))?;
    }
    volume.kill();
    drop(store);
    Ok(volume.fork(4))
}

pub(super) fn store(input: &[u8]) {
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

/// Applies the first edit: file, page, offset in it (2 bytes), length, flags, bytes.
pub(super) fn edit<'a>(
    volume: &SimVolume,
    files: &[(String, u64)],
    edits: &'a [u8],
) -> Option<&'a [u8]> {
    let (&[file, page, low, high, len, flags], rest) = edits.split_first_chunk::<6>()?;
    let (name, file_bytes) = files.get(usize::from(file) % files.len().max(1))?;
    let pages = (file_bytes / PAGE_BYTES as u64).max(1);
    let page_at = u64::from(page) % pages * PAGE_BYTES as u64;
    let within = usize::from(u16::from_le_bytes([low, high])) % PAGE_BYTES;
    let len = (usize::from(len) % (EDIT_BYTES_MAX + 1)).min(rest.len());
    let (bytes, rest) = rest.split_at(len);
    if flags & REMOVE != 0 {
        let name = crate::FileName::new(name.clone()).ok()?;
        // It may be gone already.
        drop(volume.handle().remove(&name));
        return Some(rest);
    }
    volume.overwrite(name, page_at + within as u64, bytes);
    if flags & RESEAL != 0 {
        reseal(volume, name, page_at);
    }
    Some(rest)
}

/// Makes the checksums right of what begins on a page.
fn reseal(volume: &SimVolume, name: &str, page_at: u64) {
    let Some(bytes) = volume.bytes_of(name) else {
        return;
    };
    let Some(bytes) = bytes.get(page_at as usize..) else {
        return;
    };
    match bytes.first_chunk::<8>() {
        Some(b"STEPBTCH") => {
            let mut header = bytes.to_vec();
            seal_batch_header(&mut header);
            volume.overwrite(name, page_at, &header);
        }
        Some(b"STEPWALG") => {
            let mut header = bytes.to_vec();
            super::wal::seal_group(&mut header);
            volume.overwrite(name, page_at, &header);
        }
        Some(b"STEPSLRC") => {
            let mut record = bytes.to_vec();
            super::slab::seal_record(&mut record);
            volume.overwrite(name, page_at, &record);
        }
        Some(b"STEPNVME" | b"STEPSEGM" | b"STEPWALF" | b"STEPSLAB" | b"STEPSLSG") => {
            let mut page = bytes[..PAGE_BYTES.min(bytes.len())].to_vec();
            seal_page(&mut page);
            volume.overwrite(name, page_at, &page);
        }
        _ if name.starts_with("CHECKPOINT") => reseal_checkpoint(volume, name),
        _ if name.starts_with("TABLE-") => super::slab::reseal_table(volume, name),
        _ => {}
    }
}

/// Makes the checksums of header and body right; the body has one block.
fn reseal_checkpoint(volume: &SimVolume, name: &str) {
    const BODY_AT: usize = PAGE_BYTES + 8;
    let bytes = volume.bytes_of(name).unwrap_or_default();
    let mut page = bytes[..PAGE_BYTES.min(bytes.len())].to_vec();
    seal_page(&mut page);
    let Ok(header) = CheckpointHeader::decode(&page) else {
        return;
    };
    let room = bytes.len().saturating_sub(BODY_AT);
    let body_len = usize::try_from(header.body_bytes).map_or(room, |len| len.min(room));
    let mut writer = BlockWriter::new(header.store_id, header.generation);
    let body = bytes.get(BODY_AT..BODY_AT + body_len).unwrap_or_default();
    writer.append(|block| block.extend_from_slice(body));
    let file = writer.finish(|_| header.clone());
    volume.overwrite(name, 0, &file[..file.len().min(bytes.len())]);
}

/// Does everything that a user does; whatever is wrong is an error, and what is written now is read.
fn exercise(volume: &SimVolume, read_only: bool) {
    let opened = NvmeStore::on_volume(volume.handle(), config().with_read_only(read_only));
    let Ok(store) = opened else {
        return;
    };
    drop(store.verify());
    for key in store.keys_with_prefix("") {
        if let Ok(Some(value)) = store.read_direct(&key) {
            assert_eq!(Some(value.len() as u64), store.len_of(&key));
        }
    }
    if !read_only && store.write_aligned("fresh", &[5; 5000]).is_ok() {
        let read = store.read_direct("fresh").ok().flatten();
        assert_eq!(read.as_deref(), Some(&[5; 5000][..]));
    }
    drop(store.checkpoint());
    drop(store.close());
    drop(store);
    drop(NvmeStore::on_volume(volume.handle(), config()));
}

pub(super) fn store_seeds() -> Vec<Vec<u8>> {
    let edits: [&[u8]; 6] = [
        &[],
        &[0, 0, 40, 0, 1, RESEAL, 5],
        &[1, 1, 8, 0, 2, RESEAL, 1, 2],
        &[2, 0, 72, 0, 8, RESEAL, 255, 255, 255, 255, 0, 0, 0, 0],
        &[3, 1, 60, 0, 4, RESEAL, 0, 16, 0, 0, 2, 0, 0, 0, 0, REMOVE],
        &[3, 2, 100, 0, 1, 0, 77],
    ];
    (0..4)
        .flat_map(|mode| edits.map(|edits| [&[mode][..], edits].concat()))
        .collect()
}
