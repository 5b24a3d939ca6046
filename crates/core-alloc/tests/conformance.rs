//! The conformance suite over every allocator, and over stacks of adaptors.
#![cfg(feature = "testing")]

mod sanitizer;

use core_alloc::conformance::{Report, Spec, Violation, outlive, run};
use core_alloc::{
    Alignment, Fallback, Fault, FixedPool, HugePageAllocator, Limit, MmapAllocator,
    NullDeviceAllocator, OnOom, Pages, Pool, PoolConfig, Stats, StorageAllocator, StorageError,
    StorageMemset, SystemAllocator, Trace, Verdict, split_slab,
};

fn spec() -> Spec {
    Spec::default().with_churn(3, 150)
}

/// Runs the whole suite; nothing may be refused.
fn holds<S, A>(make: impl Fn() -> Result<A, StorageError>) -> Result<(), Box<dyn std::error::Error>>
where
    S: StorageMemset,
    A: StorageAllocator<S>,
{
    let report = run(&make()?, &spec())?;
    assert!(report.served > 100, "{report:?}");
    assert_eq!(report.refused, 0);
    let allocator = make()?;
    outlive(|| allocator, &spec())?;
    Ok(())
}

/// Runs the whole suite where requests may be refused, and some must be.
fn holds_with_refusals<S, A>(
    make: impl Fn() -> Result<A, StorageError>,
    spec: &Spec,
) -> Result<(), Box<dyn std::error::Error>>
where
    S: StorageMemset,
    A: StorageAllocator<S>,
{
    let report: Report = run(&make()?, spec)?;
    assert!(report.served > 20 && report.refused > 0, "{report:?}");
    let allocator = make()?;
    outlive(|| allocator, spec)?;
    Ok(())
}

macro_rules! suites {
    ($($name:ident => $make:expr;)*) => {$(
        #[test]
        fn $name() -> Result<(), Box<dyn std::error::Error>> {
            holds(|| -> Result<_, StorageError> { Ok($make) })
        }
    )*};
}

suites! {
    system => SystemAllocator;
    system_for_direct_io => SystemAllocator::aligned(Alignment::DIRECT_IO);
    system_on_huge_pages => SystemAllocator::aligned(Alignment::HUGE_PAGE);
    system_unaligned => SystemAllocator::with_alignment(1)?;
    mmap => MmapAllocator::default();
    mmap_populated => MmapAllocator::default().with_populate(true);
    mmap_on_base_pages => MmapAllocator::default().with_base_pages_only(true).with_populate(true);
    huge_pages => HugePageAllocator::default();
    transparent_huge_pages => HugePageAllocator::from_rung(Pages::Transparent);
    huge_pages_from_the_last_rung => HugePageAllocator::from_rung(Pages::Base);
    null => NullDeviceAllocator;

    pool_of_system => Pool::new(SystemAllocator)?;
    pool_of_mmap => Pool::new(MmapAllocator::default())?;
    pool_of_null => Pool::new(NullDeviceAllocator)?;
    pool_that_keeps_nothing => Pool::with_config(
        SystemAllocator, PoolConfig::default().with_retained_max_bytes(0))?;
    pool_that_keeps_little => Pool::with_config(
        SystemAllocator, PoolConfig::default().with_retained_max_bytes(200_000))?;
    pool_of_few_blocks => Pool::with_config(
        SystemAllocator, PoolConfig::default().with_blocks_max(3))?;
    pool_of_small_blocks => Pool::with_config(
        SystemAllocator, PoolConfig::default().with_block_max_bytes(4096))?;
    limit => Limit::new(SystemAllocator, 1 << 30);
    stats => Stats::new(SystemAllocator);
    trace_to_a_ring => Trace::with_ring(SystemAllocator, 10);
    trace_to_a_callback => Trace::with_callback(SystemAllocator, |event| assert!(event.request > 0));
    fault_that_never_comes => Fault::nth(SystemAllocator, 0);
    fallback_of_equals => Fallback::new(Limit::new(SystemAllocator, 10_000), MmapAllocator::default());
    callback_never_needed => OnOom::new(SystemAllocator, 1, |_| Verdict::GiveUp);
    erased => SystemAllocator.erase();

    pool_of_stats_of_limit => Pool::new(Stats::new(Limit::new(SystemAllocator, 1 << 30)))?;
    stats_of_pool_of_limit_of_null =>
        Stats::new(Pool::new(Limit::new(NullDeviceAllocator, 1 << 62))?);
    trace_of_limit_of_pool_of_huge_pages => Trace::with_ring(
        Limit::new(Pool::new(HugePageAllocator::default())?, 1 << 30), 64);
    pool_of_pool_of_pool => Pool::new(Pool::new(Pool::new(SystemAllocator)?)?)?;
    stats_of_retry_of_pool_of_faults => Stats::new(OnOom::new(
        Pool::new(Fault::every(SystemAllocator, 3))?, 3, |_| Verdict::Retry));
    pool_of_erased_stack => Pool::new(
        Limit::new(Trace::with_ring(SystemAllocator, 8), 1 << 30).erase())?;
    stats_of_pool_of_fallback => Stats::new(Pool::new(
        Fallback::new(Fault::every(SystemAllocator, 2), MmapAllocator::default()))?);
    fallback_from_tight_pool => Fallback::new(
        Pool::new(Limit::new(SystemAllocator, 300_000))?,
        Trace::with_ring(Pool::new(MmapAllocator::default())?, 4));
    pool_of_erased_null => Stats::new(Pool::new(Limit::new(NullDeviceAllocator, 1 << 62).erase())?);
}

#[test]
fn fixed_pools() -> Result<(), Box<dyn std::error::Error>> {
    let spec = Spec::default()
        .with_sizes([4096])
        .with_churn(4, 300)
        .accepting_refusals();
    holds_with_refusals(|| FixedPool::new(&SystemAllocator, 4096, 9), &spec)?;
    holds_with_refusals(|| FixedPool::new(&NullDeviceAllocator, 4096, 9), &spec)?;
    holds_with_refusals(
        || {
            FixedPool::new(
                &Limit::new(Stats::new(MmapAllocator::default()), 1 << 20),
                4096,
                8,
            )
        },
        &spec,
    )?;
    holds_with_refusals(
        || {
            let slab = HugePageAllocator::default().allocate(10 * 4096)?;
            FixedPool::from_blocks(split_slab(slab, 4096)?)
        },
        &spec,
    )?;
    holds_with_refusals(
        || {
            let pool = FixedPool::new(&Pool::new(SystemAllocator)?, 4096, 5)?;
            Ok(Stats::new(Trace::with_ring(pool, 16)))
        },
        &spec,
    )
}

#[test]
fn stacks_that_refuse() -> Result<(), Box<dyn std::error::Error>> {
    let spec = spec().accepting_refusals();
    holds_with_refusals(|| Ok(Limit::new(SystemAllocator, 1_200_000)), &spec)?;
    holds_with_refusals(|| Ok(Fault::every(SystemAllocator, 5)), &spec)?;
    holds_with_refusals(|| Fault::probability(SystemAllocator, 0.3, 7), &spec)?;
    holds_with_refusals(|| Pool::new(Limit::new(SystemAllocator, 1_300_000)), &spec)?;
    holds_with_refusals(
        || Ok(Fault::every(Pool::new(NullDeviceAllocator)?, 4)),
        &spec,
    )?;
    holds_with_refusals(
        || {
            Ok(Stats::new(Pool::new(Fault::probability(
                Limit::new(SystemAllocator, 2_000_000),
                0.5,
                3,
            )?)?))
        },
        &spec,
    )
}

#[test]
fn kinds_may_change_in_a_fallback() -> Result<(), Box<dyn std::error::Error>> {
    let make = || Fallback::new(Limit::new(SystemAllocator, 100_000), NullDeviceAllocator);
    run(&make(), &spec().accepting_other_kinds())?;
    let refused = run(&make(), &spec());
    assert!(matches!(
        refused,
        Err(Violation {
            rule: "the kind is the allocator's",
            ..
        })
    ));
    Ok(())
}
