//! A check that a storage can be used.

use crate::{Alignment, Storage, StorageError};

/// Checks that a storage has a size, and where it has an address or a pointer, that these make sense.
///
/// ```
/// use core_alloc::{SystemStorage, validate_storage};
///
/// validate_storage(&SystemStorage::new(4096)?)?;
/// # Ok::<(), core_alloc::StorageError>(())
/// ```
///
/// # Errors
/// [`StorageError::InvalidConfig`] naming what is wrong: a size of zero, a null address, a range that
/// wraps, or a host pointer that is null, differs from the address or covers too few bytes.
pub fn validate_storage<S: Storage + ?Sized>(storage: &S) -> Result<(), StorageError> {
    let size = storage.size();
    if size == 0 {
        return Err(invalid(
            "size",
            "a storage can't have zero bytes".to_owned(),
        ));
    }
    let Some(addressable) = storage.as_addressable() else {
        return match storage.as_host() {
            None => Ok(()),
            Some(_) => Err(invalid("address", "host storage must have one".to_owned())),
        };
    };
    let address = addressable.addr();
    if address == 0 {
        return Err(invalid(
            "address",
            "a storage can't start at null".to_owned(),
        ));
    }
    if address.checked_add(size as u64 - 1).is_none() {
        return Err(invalid(
            "address",
            format!("{size} bytes from {address:#x} wrap around"),
        ));
    }
    match storage.as_host() {
        None => Ok(()),
        Some(host) if host.as_ptr().is_null() => Err(invalid(
            "pointer",
            "host storage can't start at null".to_owned(),
        )),
        Some(host) if host.as_ptr().addr() as u64 != address => Err(invalid(
            "pointer",
            format!("{:p} is not the address {address:#x}", host.as_ptr()),
        )),
        Some(host) if host.size() != size => Err(invalid(
            "size",
            format!("{} bytes on the host, {size} in all", host.size()),
        )),
        Some(_) => Ok(()),
    }
}

/// [`validate_storage`], and that the address, where there is one, is a multiple of `alignment`.
///
/// # Errors
/// As [`validate_storage`], and [`StorageError::InvalidConfig`] for a misaligned address.
pub fn validate_alignment<S: Storage + ?Sized>(
    storage: &S,
    alignment: Alignment,
) -> Result<(), StorageError> {
    validate_storage(storage)?;
    match storage
        .as_addressable()
        .map(|addressable| addressable.addr())
    {
        Some(address) if !address.is_multiple_of(alignment.bytes() as u64) => Err(invalid(
            "address",
            format!("{address:#x} is not a multiple of {}", alignment.bytes()),
        )),
        _ => Ok(()),
    }
}

fn invalid(field: &'static str, reason: String) -> StorageError {
    StorageError::InvalidConfig { field, reason }
}
