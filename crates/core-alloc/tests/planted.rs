//! Faults planted for the sanitizers: each test passes only where nothing watches.
//!
//! They are ignored in a usual run. A run under AddressSanitizer or ThreadSanitizer asks for them by
//! name and demands that the process dies of the report.

use core_alloc::{HostStorage, Pool, StorageAllocator, StorageError, SystemAllocator};

/// A pointer that outlives its block: AddressSanitizer reports the read.
#[test]
#[ignore = "planted: must fail under AddressSanitizer"]
fn planted_use_after_free() -> Result<(), StorageError> {
    let pool = Pool::new(SystemAllocator)?;
    let storage = pool.allocate(4096)?;
    let pointer = storage.as_ptr();
    drop(storage);
    pool.trim(0);
    // SAFETY: none; the block was freed, which is the fault to be found.
    let byte = unsafe { pointer.read_volatile() };
    std::hint::black_box(byte);
    Ok(())
}

/// A pointer that two threads write through: ThreadSanitizer reports the race.
#[test]
#[ignore = "planted: must fail under ThreadSanitizer"]
fn planted_data_race() -> Result<(), StorageError> {
    let mut storage = Pool::new(SystemAllocator)?.allocate(4096)?;
    let address = storage.as_mut_ptr().expose_provenance();
    std::thread::scope(|scope| {
        for value in [1, 2] {
            scope.spawn(move || {
                for _ in 0..1000 {
                    let pointer = std::ptr::with_exposed_provenance_mut::<u8>(address);
                    // SAFETY: none; the other thread writes too, which is the fault to be found.
                    unsafe { pointer.write_volatile(value) };
                }
            });
        }
    });
    Ok(())
}
