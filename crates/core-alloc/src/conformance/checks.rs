//! The rules that one thread can check.

use std::mem::discriminant;

use super::{Suite, Violation, pattern};
use crate::request::SIZE_MAX_BYTES;
use crate::{
    Alignment, Storage, StorageAllocator, StorageError, StorageMemset, validate_alignment,
};

/// Sizes that can't be had are refused as such.
pub(super) fn hostile_sizes<S, A>(suite: &Suite<'_, A>) -> Result<(), Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S> + ?Sized,
{
    let rule = "a size of zero or above isize::MAX is InvalidConfig";
    for size in [0, SIZE_MAX_BYTES + 1, usize::MAX - 4095, usize::MAX] {
        let outcome = match suite.allocator.allocate_uninit(size) {
            Err(StorageError::InvalidConfig { .. }) => continue,
            Err(error) => error.to_string(),
            Ok(storage) => format!("{size} bytes were asked for, {} served", storage.size()),
        };
        return Err(Violation::new(rule, outcome));
    }
    // The largest size that passes: it may be served (by storage without memory), but not wrongly.
    match suite.allocator.allocate_uninit(SIZE_MAX_BYTES) {
        Ok(storage) if storage.size() != SIZE_MAX_BYTES => Err(Violation::new(
            "the size is the requested one",
            format!("{SIZE_MAX_BYTES} asked for, {} served", storage.size()),
        )),
        _ => Ok(()),
    }
}

fn alignment_of<S, A>(suite: &Suite<'_, A>) -> Result<Alignment, Violation>
where
    S: Storage,
    A: StorageAllocator<S> + ?Sized,
{
    Alignment::new(suite.allocator.alignment_bytes())
        .map_err(|error| Violation::new("the alignment is a power of two", error.to_string()))
}

/// The allocator's alignment is one.
pub(super) fn alignment<S, A>(suite: &Suite<'_, A>) -> Result<(), Violation>
where
    S: Storage,
    A: StorageAllocator<S> + ?Sized,
{
    alignment_of(suite).map(drop)
}

/// One storage is what was asked for.
pub(super) fn one<S, A>(suite: &mut Suite<'_, A>, size: usize) -> Result<(), Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S> + ?Sized,
{
    let Some(mut storage) = suite.zeroed(size)? else {
        return Ok(());
    };
    if storage.size() != size {
        return Err(Violation::new(
            "the size is the requested one",
            format!("{size} asked for, {} served", storage.size()),
        ));
    }
    let (kind, expected) = (storage.storage_type(), suite.allocator.storage_type());
    if discriminant(&kind) != discriminant(&expected) && !suite.spec.kinds {
        return Err(Violation::new(
            "the kind is the allocator's",
            format!("{kind} from an allocator of {expected}"),
        ));
    }
    validate_alignment(&storage, alignment_of(suite)?)
        .map_err(|error| Violation::new("storage is valid", error.to_string()))?;
    pattern::check_value(&storage, 0, "allocate hands out zeros")?;
    if storage.as_host().is_some() != storage.as_host_mut().is_some() {
        return Err(Violation::new(
            "host access is readable and writable",
            "one of them only",
        ));
    }
    if storage.as_memset().is_none() {
        return Err(Violation::new(
            "as_memset reveals StorageMemset",
            "it does not",
        ));
    }
    Ok(())
}

/// `memset` sets exactly the range it is given, and refuses others.
pub(super) fn memset_bounds<S, A>(suite: &mut Suite<'_, A>, size: usize) -> Result<(), Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S> + ?Sized,
{
    let rule = "memset refuses a range outside the storage";
    let Some(mut storage) = suite.zeroed(size)? else {
        return Ok(());
    };
    let outside = [
        (size, 1),
        (0, size + 1),
        (1, size),
        (usize::MAX, 1),
        (1, usize::MAX),
        (usize::MAX, usize::MAX),
    ];
    for (offset, len) in outside {
        let mut outcomes = vec![storage.memset(1, offset, len)];
        outcomes.extend(
            storage
                .as_memset()
                .map(|erased| erased.memset(1, offset, len)),
        );
        for outcome in outcomes {
            if !matches!(outcome, Err(StorageError::OutOfBounds { .. })) {
                let seen = format!("{len} bytes at {offset} of {size}: {outcome:?}");
                return Err(Violation::new(rule, seen));
            }
        }
    }
    pattern::check_value(&storage, 0, rule)?;
    let failed = |error: StorageError| Violation::new("memset works", error.to_string());
    storage.memset(9, size, 0).map_err(failed)?;
    pattern::check_value(&storage, 0, "a memset of no bytes changes none")?;
    storage.memset(9, 0, size).map_err(failed)?;
    pattern::check_value(&storage, 9, "memset sets every byte")?;
    storage
        .memset(3, size / 2, size - size / 2)
        .map_err(failed)?;
    if let Some(host) = storage.as_host() {
        let (front, back) = host.as_slice().split_at(size / 2);
        if front.iter().any(|&byte| byte != 9) || back.iter().any(|&byte| byte != 3) {
            return Err(Violation::new(
                "memset sets its range alone",
                format!("size {size}"),
            ));
        }
    }
    Ok(())
}

/// Zeroed storage is zero also where a used block is handed out again.
pub(super) fn zeroed_after_reuse<S, A>(
    suite: &mut Suite<'_, A>,
    size: usize,
) -> Result<(), Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S> + ?Sized,
{
    for id in 0..3 {
        if let Some(mut storage) = suite.zeroed(size)? {
            pattern::check_value(&storage, 0, "allocate hands out zeros after reuse")?;
            pattern::write(&mut storage, id + 1);
        }
        if let Some(storage) = suite.uninit(size)? {
            let storage = storage
                .zero()
                .map_err(|error| Violation::new("memset works", error.to_string()))?;
            pattern::check_value(&storage, 0, "zero makes zeros")?;
        }
    }
    Ok(())
}

/// Storages in use at the same time share no byte.
pub(super) fn no_overlap<S, A>(suite: &mut Suite<'_, A>) -> Result<(), Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S> + ?Sized,
{
    let mut live = Vec::new();
    for round in 0..3 {
        for (place, &size) in suite.spec.sizes.iter().enumerate() {
            let id = (round * suite.spec.sizes.len() + place) as u64;
            if let Some(mut storage) = suite.zeroed(size)? {
                pattern::write(&mut storage, id);
                live.push((id, storage));
            }
        }
        // Every other one goes, so that the next round finds gaps and used blocks.
        let mut place = 0;
        live.retain(|_| {
            place += 1;
            place % 2 == 0
        });
    }
    let mut ranges: Vec<(u64, u64)> = live
        .iter()
        .filter_map(|(_, storage)| Some((storage.as_addressable()?.addr(), storage.size() as u64)))
        .collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        if let [(start, size), (next, _)] = pair
            && start + size > *next
        {
            return Err(Violation::new(
                "addresses are disjoint",
                format!("{size} bytes at {start:#x} reach over {next:#x}"),
            ));
        }
    }
    for (id, storage) in &live {
        pattern::check(storage, *id, "bytes stay what was written")?;
    }
    Ok(())
}
