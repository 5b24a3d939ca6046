//! Allocators that break one rule each, to show that the conformance suite and the pools notice.
#![cfg(feature = "testing")]

use std::sync::Mutex;

use core_alloc::conformance::{Spec, run};
use core_alloc::{
    AddressableStorage, Alignment, FixedPool, HostStorage, Pool, Request, Stats, Storage,
    StorageAllocator, StorageError, StorageMemset, StorageType, SystemAllocator, SystemStorage,
    Uninit, validate_alignment, validate_storage,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breach {
    /// Says that dirty memory is zero.
    Dirty,
    /// Hands out one byte less than asked for.
    Short,
    /// Starts one byte after an aligned address.
    Misaligned,
    /// Hands out memory of another kind than it says.
    Kind,
    /// Clears one byte past the range of a memset.
    Overrun,
    /// Accepts a range whose end wraps.
    Wraps,
    /// Does not reveal its memset.
    Hidden,
    /// Fails where nothing may.
    Refuses,
}

/// A part of a system storage, with a flaw.
#[derive(Debug)]
struct Flawed {
    inner: SystemStorage,
    lead: usize,
    size: usize,
    breach: Breach,
}

impl Storage for Flawed {
    fn storage_type(&self) -> StorageType {
        match self.breach {
            Breach::Kind => StorageType::Pinned,
            _ => StorageType::System,
        }
    }
    fn size(&self) -> usize {
        self.size
    }
    fn as_addressable(&self) -> Option<&dyn AddressableStorage> {
        Some(self)
    }
    fn as_host(&self) -> Option<&dyn HostStorage> {
        Some(self)
    }
    fn as_host_mut(&mut self) -> Option<&mut dyn HostStorage> {
        Some(self)
    }
    fn as_memset(&mut self) -> Option<&mut dyn StorageMemset> {
        match self.breach {
            Breach::Hidden => None,
            _ => Some(self),
        }
    }
}

// SAFETY: `lead + size` is at most the size of the inner storage, whose own contract holds.
unsafe impl AddressableStorage for Flawed {
    fn addr(&self) -> u64 {
        self.inner.addr() + self.lead as u64
    }
}

// SAFETY: as above.
unsafe impl HostStorage for Flawed {
    fn as_ptr(&self) -> *const u8 {
        self.inner.as_ptr().wrapping_add(self.lead)
    }
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.inner.as_mut_ptr().wrapping_add(self.lead)
    }
}

impl StorageMemset for Flawed {
    fn memset(&mut self, value: u8, offset: usize, len: usize) -> Result<(), StorageError> {
        let end = offset.wrapping_add(len);
        let wraps = self.breach == Breach::Wraps && end < offset;
        if wraps {
            return Ok(());
        }
        if end > self.size || end < offset {
            return Err(StorageError::OutOfBounds {
                offset_bytes: offset,
                len_bytes: len,
                size_bytes: self.size,
            });
        }
        // Only zeroing must reach all bytes for the suite to get to the breach.
        let offset = match self.breach {
            Breach::Overrun if value == 3 && offset > 0 => offset - 1,
            _ => offset,
        };
        self.inner.memset(value, self.lead + offset, end - offset)
    }
}

struct Broken {
    breach: Breach,
    requests: Mutex<u64>,
}

impl Broken {
    fn new(breach: Breach) -> Self {
        let requests = Mutex::new(0);
        Self { breach, requests }
    }
}

impl StorageAllocator<Flawed> for Broken {
    fn storage_type(&self) -> StorageType {
        StorageType::System
    }
    fn alignment_bytes(&self) -> usize {
        64
    }
    fn request(&self, request: Request) -> Result<Uninit<Flawed>, StorageError> {
        let nth = {
            let mut requests = self
                .requests
                .lock()
                .unwrap_or_else(|error| error.into_inner());
            *requests += 1;
            *requests
        };
        if self.breach == Breach::Refuses && nth > 3 {
            return Err(StorageError::AllocationFailed {
                kind: StorageType::System,
                requested_bytes: request.size(),
                alignment_bytes: 64,
                available_bytes: Some(0),
                source: None,
            });
        }
        let mut inner =
            SystemAllocator.allocate(request.size().checked_add(1).ok_or_else(|| {
                StorageError::OutOfBounds {
                    offset_bytes: 0,
                    len_bytes: 1,
                    size_bytes: request.size(),
                }
            })?)?;
        if self.breach == Breach::Dirty && request.size() > 1000 {
            let last = request.size() - 1;
            inner.memset(1, last, 1)?;
        }
        let storage = Flawed {
            inner,
            lead: usize::from(self.breach == Breach::Misaligned),
            size: request.size() - usize::from(self.breach == Breach::Short && request.size() > 1),
            breach: self.breach,
        };
        // SAFETY: every byte was initialised; that one of them may not be zero is the breach shown.
        Ok(unsafe { Uninit::new_zeroed(storage) })
    }
}

fn rule_broken_by(breach: Breach) -> Option<&'static str> {
    run(&Broken::new(breach), &Spec::default().with_churn(2, 20))
        .err()
        .map(|violation| violation.rule)
}

#[test]
fn every_breach_is_named() {
    for (breach, rule) in [
        (Breach::Dirty, "allocate hands out zeros"),
        (Breach::Short, "the size is the requested one"),
        (Breach::Misaligned, "storage is valid"),
        (Breach::Kind, "the kind is the allocator's"),
        (Breach::Overrun, "memset sets its range alone"),
        (Breach::Wraps, "memset refuses a range outside the storage"),
        (Breach::Hidden, "as_memset reveals StorageMemset"),
        (Breach::Refuses, "requests are served"),
    ] {
        assert_eq!(rule_broken_by(breach), Some(rule), "{breach:?}");
    }
}

#[test]
fn pools_refuse_blocks_that_break_the_contract() -> Result<(), StorageError> {
    for breach in [Breach::Short, Breach::Misaligned] {
        let stats = Stats::new(Broken::new(breach));
        let pool = Pool::new(&stats)?;
        let refused = pool.allocate(5000).map(drop);
        assert!(
            matches!(refused, Err(StorageError::BrokenContract { .. })),
            "{refused:?}"
        );
        assert_eq!((pool.usage().held_bytes, stats.all().current_bytes), (0, 0));

        let refused = FixedPool::new(&stats, 5000, 3).map(drop);
        assert!(
            matches!(refused, Err(StorageError::BrokenContract { .. })),
            "{refused:?}"
        );
        assert_eq!(stats.all().current_count, 0);
    }
    Ok(())
}

#[test]
fn validation_names_what_is_wrong() -> Result<(), StorageError> {
    let storage = Broken::new(Breach::Misaligned).allocate(100)?;
    validate_storage(&storage)?;
    let refused = validate_alignment(&storage, Alignment::new(64)?);
    assert!(matches!(
        refused,
        Err(StorageError::InvalidConfig {
            field: "address",
            ..
        })
    ));
    validate_alignment(&SystemStorage::new(100)?, Alignment::CACHE_LINES)?;

    /// Says that it is somewhere, or has no size.
    #[derive(Debug)]
    struct Claims(u64, usize);
    impl Storage for Claims {
        fn storage_type(&self) -> StorageType {
            StorageType::Device(0)
        }
        fn size(&self) -> usize {
            self.1
        }
        fn as_addressable(&self) -> Option<&dyn AddressableStorage> {
            Some(self)
        }
    }
    // SAFETY: nothing follows the address.
    unsafe impl AddressableStorage for Claims {
        fn addr(&self) -> u64 {
            self.0
        }
    }
    for (claims, at_fault) in [
        (Claims(4096, 0), "size"),
        (Claims(0, 4096), "address"),
        (Claims(u64::MAX - 100, 4096), "address"),
    ] {
        match validate_storage(&claims) {
            Err(StorageError::InvalidConfig { field, .. }) => assert_eq!(field, at_fault),
            other => assert!(other.is_err(), "{claims:?} passed"),
        }
    }
    validate_storage(&Claims(4096, 4096))
}
