//! Sizes and settings that nobody means well with, and allocators that fail at random.

mod sanitizer;

use core_alloc::{
    AddressableStorage, Alignment, Fault, HugePageAllocator, Limit, MmapAllocator, OnOom, Pages,
    Pool, PoolConfig, Request, Stats, Storage, StorageAllocator, StorageError, SystemAllocator,
    SystemStorage, Trace, Verdict, split_slab,
};

const ISIZE_MAX: usize = isize::MAX as usize;

fn refusal<S: Storage, A: StorageAllocator<S>>(allocator: &A, size: usize) -> StorageError {
    match allocator.allocate_uninit(size) {
        Err(error) => error,
        Ok(storage) => StorageError::BrokenContract {
            kind: storage.storage_type(),
            requested_bytes: size,
            broken: "it was served".to_owned(),
        },
    }
}

#[test]
fn sizes_that_no_memory_has_are_errors() -> Result<(), StorageError> {
    for size in [0, ISIZE_MAX + 1, usize::MAX - 127, usize::MAX] {
        for error in [
            refusal(&SystemAllocator, size),
            refusal(&MmapAllocator::default(), size),
            refusal(&HugePageAllocator::default(), size),
            refusal(&Pool::new(SystemAllocator)?, size),
            refusal(&Limit::new(SystemAllocator, usize::MAX), size),
        ] {
            let invalid = matches!(error, StorageError::InvalidConfig { field: "size", .. });
            assert!(invalid, "{size}: {error}");
        }
        assert!(SystemStorage::new(size).is_err() && Request::new(size).is_err());
    }
    // Sizes that wrap when rounded up, and sizes that are only too large.
    for size in [
        ISIZE_MAX,
        ISIZE_MAX - 126,
        ISIZE_MAX - 5000,
        ISIZE_MAX / 2,
        1 << 50,
    ] {
        for error in [
            refusal(&SystemAllocator, size),
            refusal(&SystemAllocator::aligned(Alignment::HUGE_PAGE), size),
            refusal(&MmapAllocator::default(), size),
            refusal(&HugePageAllocator::default(), size),
            refusal(&HugePageAllocator::from_rung(Pages::Transparent), size),
            refusal(&Pool::new(SystemAllocator)?, size),
            refusal(&Pool::new(MmapAllocator::default())?, size),
        ] {
            let typed = matches!(
                error,
                StorageError::InvalidConfig { field: "size", .. }
                    | StorageError::AllocationFailed { .. }
            );
            assert!(typed, "{size}: {error}");
        }
        assert!(SystemStorage::new(size).is_err());
    }
    Ok(())
}

#[test]
fn quota_survives_sizes_that_would_overflow_it() -> Result<(), StorageError> {
    let limit = Limit::new(SystemAllocator, usize::MAX);
    let storage = limit.allocate(1000)?;
    assert!(limit.allocate(ISIZE_MAX).is_err());
    assert!(limit.allocate(ISIZE_MAX - 1000).is_err());
    assert_eq!(
        limit.used_bytes(),
        1000,
        "a failed request gives its share back"
    );
    drop(storage);
    assert_eq!(limit.used_bytes(), 0);
    Ok(())
}

#[test]
fn failures_carry_the_facts() {
    let error = refusal(&MmapAllocator::default(), 1 << 50);
    match &error {
        StorageError::AllocationFailed {
            requested_bytes,
            source: Some(source),
            ..
        } => {
            assert_eq!(*requested_bytes, 1 << 50);
            assert_eq!(source.raw_os_error(), Some(libc::ENOMEM));
        }
        other => assert!(other.is_out_of_memory(), "{other}"),
    }
    assert!(error.to_string().contains("1125899906842624"), "{error}");
}

#[test]
fn alignments_are_checked() -> Result<(), StorageError> {
    for wrong in [0, 3, 4097, usize::MAX, 1 << 63] {
        assert!(SystemAllocator::with_alignment(wrong).is_err(), "{wrong}");
    }
    for shift in 0..22 {
        let allocator = SystemAllocator::with_alignment(1 << shift)?;
        for size in [1, 1000, 300_000, 3 << 20] {
            assert!(allocator.allocate(size)?.addr().is_multiple_of(1 << shift));
            assert!(
                allocator
                    .allocate_uninit(size)?
                    .address()
                    .is_some_and(|a| a % (1 << shift) == 0)
            );
        }
    }
    // Wider than any memory: refused by the system, not by a wrap.
    let error = refusal(&SystemAllocator::with_alignment(1 << 48)?, 1);
    assert!(error.is_out_of_memory(), "{error}");
    Ok(())
}

/// Large zeroed storage has no pages yet, whatever its alignment.
#[test]
fn large_zeroed_storage_takes_no_memory_before_use() -> Result<(), StorageError> {
    if std::env::var_os("TSAN_OPTIONS").is_some() {
        eprintln!("skipped: ThreadSanitizer's allocator writes zeros itself");
        return Ok(());
    }
    for alignment in [
        Alignment::CACHE_LINES,
        Alignment::DIRECT_IO,
        Alignment::HUGE_PAGE,
    ] {
        let storage = SystemAllocator::aligned(alignment).allocate(64 << 20)?;
        let start = usize::try_from(storage.addr().next_multiple_of(4096)).unwrap_or(0);
        let mut resident = vec![0u8; (32 << 20) / 4096];
        // SAFETY: the range lies inside the storage, and there is a byte for each of its pages.
        let code = unsafe {
            libc::mincore(
                std::ptr::with_exposed_provenance_mut(start),
                resident.len() * 4096,
                resident.as_mut_ptr(),
            )
        };
        assert_eq!(code, 0);
        let pages = resident.iter().filter(|page| **page & 1 == 1).count();
        assert!(pages < 16, "{pages} pages of {} are there", resident.len());
    }
    Ok(())
}

#[test]
fn slabs_are_split_within_bounds() -> Result<(), StorageError> {
    for wrong in [0, 1001, usize::MAX] {
        assert!(split_slab(SystemStorage::new(1000)?, wrong).is_err());
    }
    let parts = split_slab(SystemStorage::new(1000)?, 300)?;
    let addresses: Vec<u64> = parts.iter().map(|part| part.addr()).collect();
    assert_eq!(addresses.len(), 3);
    assert!(addresses.windows(2).all(|pair| pair[1] - pair[0] == 300));
    Ok(())
}

/// The ladder ends on a rung, and says which and why.
#[test]
fn the_ladder_reports_its_rungs() -> Result<(), StorageError> {
    let allocator = HugePageAllocator::default();
    let small = allocator.allocate(4096)?;
    assert_eq!(small.pages(), Pages::Base);
    let large = allocator.allocate(5 << 20)?;
    let report = allocator.clone().report();
    assert_eq!(
        report.huge_count + report.transparent_count + report.base_count,
        2
    );
    if large.pages() != Pages::Huge {
        assert!(report.huge_refused.is_some());
    }
    match large.pages() {
        Pages::Base => assert!(report.transparent_refused.is_some()),
        _ => assert!(large.addr().is_multiple_of(2 << 20)),
    }
    let base = HugePageAllocator::from_rung(Pages::Base);
    assert_eq!(base.allocate(4 << 20)?.pages(), Pages::Base);
    assert_eq!(base.report().huge_refused, None);
    Ok(())
}

/// Everything at once over an allocator that fails at random: accounts are right at every moment and
/// empty at the end.
#[test]
fn accounts_survive_random_failure_between_threads() -> Result<(), StorageError> {
    for seed in 0..5 {
        let stats = Stats::new(Fault::probability(SystemAllocator, 0.3, seed)?);
        let limit = Limit::new(&stats, 2_000_000);
        let config = PoolConfig::default().with_retained_max_bytes(500_000);
        let pool = Pool::with_config(&limit, config)?;
        let top = Trace::with_ring(OnOom::new(&pool, 2, |_| Verdict::Retry), 100);
        std::thread::scope(|scope| {
            for thread in 0..4usize {
                let top = &top;
                scope.spawn(move || {
                    let mut live = Vec::new();
                    for round in 0..500usize {
                        live.extend(top.allocate(1 + (round * 6101 + thread * 7) % 100_000).ok());
                        if live.len() > 8 {
                            live.swap_remove(round % 8);
                        }
                    }
                });
            }
        });
        assert_eq!(stats.all().current_bytes, pool.usage().idle_bytes as u64);
        assert_eq!(limit.used_bytes(), pool.usage().held_bytes);
        assert!(stats.inner().injected() > 0 && stats.all().peak_bytes <= 2_000_000);
        pool.trim(0);
        assert_eq!((stats.all().current_bytes, limit.used_bytes()), (0, 0));
    }
    Ok(())
}
