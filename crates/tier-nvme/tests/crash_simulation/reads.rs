//! The ways to read a value.

use core_view::BufferMut;
use tier_nvme::{NvmeError, NvmeStore};

pub(super) const WAYS: u64 = 6;

/// Reads a value in the way of that number.
pub(super) fn read(store: &NvmeStore, key: &[u8], way: u64) -> Result<Option<Vec<u8>>, NvmeError> {
    let bytes = |value: BufferMut| value.to_vec();
    match way % WAYS {
        0 => Ok(store.read_direct(key)?.map(bytes)),
        1 => {
            let mut outcomes = store.read_many(&[key, b"absent"]);
            assert!(outcomes.pop().unwrap()?.is_none());
            Ok(outcomes.pop().unwrap()?.map(bytes))
        }
        2 => Ok(store.read_async(key).wait()?.map(bytes)),
        3 => {
            let target = BufferMut::zeroed(32 << 10, 4096).unwrap();
            let (target, len) = store.read_into(key, target)?;
            Ok(len.map(|len| target[..len].to_vec()))
        }
        4 => Ok(store.map_value(key)?.map(|value| value.to_vec())),
        _ => {
            let value = store.read_shared(key)?;
            Ok(value.map(|value| value.as_slice().to_vec()))
        }
    }
}
