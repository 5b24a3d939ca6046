//! What each adaptor adds: accounts that stay right under failure and concurrency.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use core_alloc::{
    Either, Fallback, Fault, HostStorage, Limit, OnOom, Pool, Stats, Storage, StorageAllocator,
    StorageError, StorageType, SystemAllocator, SystemStorage, Trace, TraceAction, Usage, Verdict,
};
use proptest::prelude::*;

proptest! {
    /// Counts equal a model, with failures from above and below in between.
    #[test]
    fn stats_equal_a_model(
        steps in prop::collection::vec((any::<bool>(), 1usize..5000, any::<usize>()), 1..200),
        every in 2u64..6,
    ) {
        let stats = Stats::new(Fault::every(SystemAllocator, every));
        let mut live: Vec<(usize, _)> = Vec::new();
        let mut model = Usage::default();
        let mut requests = 0;
        for (get, size, choice) in steps {
            if get {
                requests += 1;
                match stats.allocate(size) {
                    Ok(storage) => {
                        prop_assert!(requests % every != 0);
                        live.push((size, storage));
                        model.total_bytes += size as u64;
                        model.total_count += 1;
                    }
                    Err(_) => {
                        prop_assert!(requests % every == 0);
                        model.failed_count += 1;
                    }
                }
            } else if !live.is_empty() {
                drop(live.swap_remove(choice % live.len()));
            }
            model.current_bytes = live.iter().map(|(size, _)| *size as u64).sum();
            model.current_count = live.len() as u64;
            model.peak_bytes = model.peak_bytes.max(model.current_bytes);
            prop_assert_eq!(stats.all(), model);
            prop_assert_eq!(stats.of(StorageType::System), model);
            prop_assert_eq!(stats.of(StorageType::Pinned), Usage::default());
        }
    }

    #[test]
    fn the_nth_request_fails_and_no_other(n in 1u64..50, len in 1u64..100) {
        let fault = Fault::nth(SystemAllocator, n);
        for request in 1..=len {
            let result = fault.allocate(16);
            let failed = matches!(result, Err(StorageError::Injected { nth, .. }) if nth == n);
            prop_assert_eq!(failed, request == n);
            prop_assert_eq!(result.is_err(), failed);
        }
        prop_assert_eq!(fault.injected(), u64::from(n <= len));
    }

    #[test]
    fn a_seed_reproduces_its_faults(seed in any::<u64>(), probability in 0.0f64..=1.0) {
        let run = || -> Result<Vec<bool>, StorageError> {
            let fault = Fault::probability(SystemAllocator, probability, seed)?;
            Ok((0..200).map(|_| fault.allocate(16).is_ok()).collect())
        };
        prop_assert_eq!(run()?, run()?);
    }

    /// A limit is never passed, and a refusal says how much was left.
    #[test]
    fn a_limit_equals_its_model(
        steps in prop::collection::vec((any::<bool>(), 1usize..5000, any::<usize>()), 1..200),
        limit_bytes in 0usize..20_000,
    ) {
        let limit = Limit::new(Fault::every(SystemAllocator, 5), limit_bytes);
        let mut live = Vec::new();
        let mut used = 0;
        for (get, size, choice) in steps {
            if get {
                match limit.allocate(size) {
                    Ok(storage) => {
                        used += size;
                        live.push((size, storage));
                    }
                    Err(StorageError::LimitExceeded { available_bytes, .. }) => {
                        prop_assert_eq!(available_bytes, limit_bytes - used);
                        prop_assert!(size > available_bytes);
                    }
                    Err(error) => {
                        let injected = matches!(error, StorageError::Injected { .. });
                        prop_assert!(injected, "{}", error);
                    }
                }
            } else if !live.is_empty() {
                let (size, storage) = live.swap_remove(choice % live.len());
                used -= size;
                drop(storage);
            }
            prop_assert!(used <= limit_bytes);
            prop_assert_eq!(limit.used_bytes(), used);
        }
    }
}

#[test]
fn probabilities_are_kept() -> Result<(), StorageError> {
    for (probability, low, high) in [
        (0.0, 0, 0),
        (0.1, 800, 1200),
        (0.9, 8800, 9200),
        (1.0, 10_000, 10_000),
    ] {
        let fault = Fault::probability(SystemAllocator, probability, 42)?;
        for _ in 0..10_000 {
            drop(fault.allocate(16));
        }
        assert!(
            (low..=high).contains(&fault.injected()),
            "{probability}: {}",
            fault.injected()
        );
    }
    for wrong in [-0.1, 1.1, f64::NAN] {
        assert!(Fault::probability(SystemAllocator, wrong, 0).is_err());
    }
    Ok(())
}

#[test]
fn a_limit_holds_between_threads() {
    let stats = Stats::new(SystemAllocator);
    let limit = Limit::new(&stats, 10_000);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let limit = &limit;
            scope.spawn(move || {
                let mut live = Vec::new();
                for round in 0..2000usize {
                    live.extend(limit.allocate(1 + (round * 31 + thread) % 3000).ok());
                    if live.len() > 3 {
                        live.clear();
                    }
                }
            });
        }
    });
    assert!(stats.all().peak_bytes <= 10_000);
    assert!(stats.all().total_count > 100);
    assert_eq!((limit.used_bytes(), stats.all().current_bytes), (0, 0));
}

#[test]
fn a_lower_limit_holds_for_what_comes() -> Result<(), StorageError> {
    let limit = Limit::new(SystemAllocator, 1000);
    let storage = limit.allocate(800)?;
    limit.set_limit_bytes(500);
    let refused = limit.allocate(1).map(drop);
    assert!(matches!(
        refused,
        Err(StorageError::LimitExceeded {
            available_bytes: 0,
            ..
        })
    ));
    drop(storage);
    limit.allocate(500).map(drop)
}

#[test]
fn a_trace_tells_the_story_in_order() -> Result<(), StorageError> {
    let trace = Trace::with_ring(Fault::nth(SystemAllocator, 2), 3);
    let first = trace.allocate(100)?;
    assert!(trace.allocate(200).is_err());
    let third = trace.allocate(300)?;
    drop(first);
    let seen: Vec<_> = trace
        .events()
        .iter()
        .map(|event| (event.action, event.request, event.size_bytes))
        .collect();
    assert_eq!(
        seen,
        [
            (TraceAction::Failed, 2, 200),
            (TraceAction::Allocated, 3, 300),
            (TraceAction::Released, 1, 100),
        ]
    );
    assert_eq!(trace.lost(), 1, "the ring is bounded");
    drop((trace, third));

    let none = Trace::with_ring(SystemAllocator, 0);
    drop(none.allocate(1)?);
    assert_eq!((none.events().len(), none.lost()), (0, 2));
    Ok(())
}

#[test]
fn a_callback_that_panics_stops_nothing() -> Result<(), StorageError> {
    let stats = Stats::new(SystemAllocator);
    let trace = Trace::with_callback(&stats, |event| assert!(event.request != 1, "planned"));
    let storage = trace.allocate(100)?;
    drop(storage);
    assert_eq!(trace.lost(), 2);
    assert_eq!(stats.all().current_count, 0);
    drop(trace.allocate(100)?);
    assert_eq!(trace.lost(), 2);
    Ok(())
}

#[test]
fn a_fallback_serves_lack_of_memory_only() -> Result<(), StorageError> {
    let fallback = Fallback::new(
        Limit::new(SystemAllocator, 100),
        Limit::new(SystemAllocator, 1000),
    );
    assert!(matches!(
        fallback.allocate(0),
        Err(StorageError::InvalidConfig { .. })
    ));
    let first = fallback.allocate(100)?;
    let second = fallback.allocate(1000)?;
    assert!(matches!(
        (&first, &second),
        (Either::Primary(_), Either::Secondary(_))
    ));
    assert_eq!(second.as_slice().len(), 1000);
    match fallback.allocate(1) {
        Err(error @ StorageError::FallbackFailed { .. }) => {
            assert!(error.is_out_of_memory());
            assert!(error.to_string().contains("limit of 100 bytes"), "{error}");
        }
        other => assert!(other.is_err(), "both are full"),
    }
    assert_eq!(fallback.fallbacks(), 1);
    drop((first, second));
    assert_eq!(
        (
            fallback.primary().used_bytes(),
            fallback.secondary().used_bytes()
        ),
        (0, 0)
    );
    Ok(())
}

#[test]
fn a_callback_may_make_room() -> Result<(), StorageError> {
    let limit = Arc::new(Limit::new(SystemAllocator, 1000));
    let cache = Arc::new(Mutex::new(vec![limit.allocate(400)?, limit.allocate(400)?]));
    let seen = Arc::clone(&cache);
    let allocator = OnOom::new(Arc::clone(&limit), 5, move |lack| {
        assert_eq!(lack.requested_bytes, 900);
        match seen.lock().map(|mut cache| cache.pop()) {
            Ok(Some(_)) => Verdict::Retry,
            _ => Verdict::GiveUp,
        }
    });
    let storage = allocator.allocate(900)?;
    assert_eq!((allocator.retries(), allocator.failures()), (2, 0));
    assert!(allocator.allocate(900).is_err());
    assert_eq!((allocator.retries(), allocator.failures()), (2, 1));
    drop(storage);
    assert_eq!(limit.used_bytes(), 0);
    Ok(())
}

#[test]
fn retries_are_bounded_and_for_lack_of_memory_only() {
    let calls = AtomicU32::new(0);
    let allocator = OnOom::new(Limit::new(SystemAllocator, 10), 3, |lack| {
        assert_eq!(lack.attempt, calls.fetch_add(1, Ordering::Relaxed) + 1);
        Verdict::Retry
    });
    assert!(allocator.allocate(11).is_err());
    assert_eq!(
        calls.load(Ordering::Relaxed),
        4,
        "three retries, four failures"
    );
    assert!(allocator.allocate(0).is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}

/// The inner storage of a prefix may hold uninitialised bytes, so that it is not shown.
#[test]
fn a_prefix_hides_the_rest() -> Result<(), StorageError> {
    let pool = Pool::new(SystemAllocator)?;
    let part = pool.allocate(100)?;
    assert!(part.inner().is_none());
    assert_eq!(part.as_host().map(|host| host.as_slice().len()), Some(100));
    let whole = pool.allocate(128)?;
    assert_eq!(whole.inner().map(SystemStorage::size), Some(128));

    let mut erased = Pool::new(SystemAllocator.erase())?.allocate(100)?;
    let seen = erased
        .as_addressable()
        .map(|storage| (storage.addr(), storage.size()));
    let host = erased.as_host_mut().map(|host| {
        host.as_mut_slice().fill(7);
        (host.addr(), host.as_slice().len())
    });
    assert_eq!(seen, host);
    assert_eq!(host.map(|(_, len)| len), Some(100));
    assert_eq!(
        erased
            .as_memset()
            .map(|storage| storage.memset(1, 99, 2).is_err()),
        Some(true)
    );
    Ok(())
}

#[test]
fn stats_tell_kinds_apart() -> Result<(), StorageError> {
    let stats = Stats::new(Fallback::new(
        Limit::new(SystemAllocator, 100),
        SystemAllocator,
    ));
    let storage = stats.allocate(1000)?;
    assert_eq!(stats.of(StorageType::System).current_bytes, 1000);
    assert_eq!(stats.of(StorageType::Device(0)), Usage::default());
    assert_eq!(stats.of(StorageType::Device(1_000_000)), Usage::default());
    drop(storage);
    Ok(())
}
