//! Setting a range of a region to one value.

use std::collections::VecDeque;

use core_alloc::{Storage, StorageError};
use core_view::BufferMut;
use core_view::contract::Transfer;

use super::DiskStorage;
use super::error::failed;

/// Bytes of one write.
const WRITE_BYTES: u64 = 1 << 20;
/// Writes under way at once.
const DEPTH: usize = 4;
const OPERATION: &str = "memset";

pub(super) fn memset(
    storage: &mut DiskStorage,
    value: u8,
    offset: usize,
    len: usize,
) -> Result<(), StorageError> {
    let end = offset
        .checked_add(len)
        .filter(|&end| end <= storage.size())
        .ok_or(StorageError::OutOfBounds {
            offset_bytes: offset,
            len_bytes: len,
            size_bytes: storage.size(),
        })?;
    let (begin, end) = (offset as u64, end as u64);
    let unit = storage.alignment().offset_bytes as u64;
    // What lies between the size and the end of the last unit is nobody's.
    let end = if end == storage.size() as u64 {
        storage.padded_bytes()
    } else {
        end
    };
    if begin == end {
        return Ok(());
    }
    let (inner_begin, inner_end) = (begin.next_multiple_of(unit), end - end % unit);
    if inner_begin > inner_end {
        return set_part(storage, value, begin, end);
    }
    set_part(storage, value, begin, inner_begin)?;
    set_whole(storage, value, inner_begin, inner_end)?;
    set_part(storage, value, inner_end, end)
}

fn buffer(storage: &DiskStorage, len_bytes: u64) -> Result<BufferMut, StorageError> {
    BufferMut::zeroed(len_bytes as usize, storage.alignment().memory_bytes)
}

/// Sets a range within one unit.
fn set_part(storage: &DiskStorage, value: u8, begin: u64, end: u64) -> Result<(), StorageError> {
    if begin == end {
        return Ok(());
    }
    let unit = storage.alignment().offset_bytes as u64;
    let at = begin - begin % unit;
    let fail = |failure| failed(storage.region(), OPERATION, failure);
    let target = buffer(storage, unit)?;
    let mut page = storage.file().read_blocking(at, target).map_err(fail)?;
    page[(begin - at) as usize..(end - at) as usize].fill(value);
    storage.file().write(at, page).wait().map_err(fail)?;
    Ok(())
}

/// Sets whole units, some writes at a time.
fn set_whole(storage: &DiskStorage, value: u8, begin: u64, end: u64) -> Result<(), StorageError> {
    let mut under_way: VecDeque<Transfer<BufferMut>> = VecDeque::new();
    let mut at = begin;
    let mut result = Ok(());
    loop {
        let is_over = at == end || result.is_err();
        let free = match under_way.len() {
            0 if is_over => return result,
            len if len == DEPTH || is_over => under_way.pop_front(),
            _ => None,
        };
        let free = match free.map(Transfer::wait) {
            None => None,
            Some(Ok(free)) => Some(free),
            Some(Err(failure)) => {
                result = Err(failed(storage.region(), OPERATION, failure));
                None
            }
        };
        if is_over || result.is_err() {
            continue;
        }
        let len = (end - at).min(WRITE_BYTES);
        let source = match free {
            Some(mut free) if free.len() as u64 >= len => {
                drop(free.split_off(len as usize));
                free
            }
            _ => {
                let mut fresh = buffer(storage, len)?;
                fresh.fill(value);
                fresh
            }
        };
        under_way.push_back(storage.file().write(at, source));
        at += len;
    }
}
