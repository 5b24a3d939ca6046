//! What every allocator must do, as a suite that its author runs.
//!
//! [`run`] checks an allocator from one thread and then from several; [`outlive`] checks that what it
//! handed out survives it. Adaptors are allocators, so each stack of them is checked in the same way.
//!
//! ```
//! use core_alloc::conformance::{Spec, outlive, run};
//! use core_alloc::{Limit, Pool, SystemAllocator};
//!
//! let make = || Limit::new(SystemAllocator, 64 << 20);
//! let report = run(&Pool::new(make())?, &Spec::default())?;
//! assert!(report.served > 0 && report.refused == 0);
//! outlive(make, &Spec::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::{Request, Storage, StorageAllocator, StorageError, StorageMemset, Uninit};

mod checks;
mod churn;
mod pattern;

/// A rule that an allocator or its storage broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule \"{rule}\" is broken: {detail}")]
#[non_exhaustive]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// What was seen instead.
    pub detail: String,
}

impl Violation {
    fn new(rule: &'static str, detail: impl Into<String>) -> Self {
        Self {
            rule,
            detail: detail.into(),
        }
    }
}

/// What to ask an allocator for.
#[derive(Debug, Clone)]
pub struct Spec {
    sizes: Vec<usize>,
    threads: usize,
    rounds: usize,
    seed: u64,
    refusals: bool,
    kinds: bool,
}

impl Default for Spec {
    /// Sizes from 1 byte to 300 000, four threads with 400 rounds each.
    fn default() -> Self {
        Self {
            sizes: vec![
                1, 7, 127, 128, 129, 1000, 4096, 5000, 65_536, 100_001, 262_144, 300_000,
            ],
            threads: 4,
            rounds: 400,
            seed: 1,
            refusals: false,
            kinds: false,
        }
    }
}

impl Spec {
    /// The sizes in bytes to ask for; for a pool of equal blocks, their size alone.
    #[must_use]
    pub fn with_sizes(mut self, sizes: impl Into<Vec<usize>>) -> Self {
        self.sizes = sizes.into();
        self
    }

    /// How many threads churn, and for how many rounds each.
    #[must_use]
    pub fn with_churn(mut self, threads: usize, rounds: usize) -> Self {
        self.threads = threads;
        self.rounds = rounds;
        self
    }

    /// Where the choices of the churn start from.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Accepts requests refused for lack of memory: for faults, limits and fixed pools.
    #[must_use]
    pub fn accepting_refusals(mut self) -> Self {
        self.refusals = true;
        self
    }

    /// Accepts storage of another kind than the allocator's own: for fallbacks between kinds.
    #[must_use]
    pub fn accepting_other_kinds(mut self) -> Self {
        self.kinds = true;
        self
    }
}

/// How many requests a run made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Requests that were served.
    pub served: u64,
    /// Requests that were refused for lack of memory, where that is accepted.
    pub refused: u64,
}

/// Runs every check on an allocator.
///
/// # Errors
/// The first rule that was broken.
pub fn run<S, A>(allocator: &A, spec: &Spec) -> Result<Report, Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S> + ?Sized,
{
    let mut suite = Suite::new(allocator, spec);
    checks::hostile_sizes(&suite)?;
    checks::alignment(&suite)?;
    for &size in &spec.sizes {
        checks::one(&mut suite, size)?;
        checks::memset_bounds(&mut suite, size)?;
        checks::zeroed_after_reuse(&mut suite, size)?;
    }
    checks::no_overlap(&mut suite)?;
    churn::threads(&mut suite)?;
    Ok(suite.report)
}

/// Checks that storage outlives the allocator that it came from, also on another thread.
///
/// # Errors
/// The first rule that was broken.
pub fn outlive<S, A>(make: impl FnOnce() -> A, spec: &Spec) -> Result<Report, Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S>,
{
    let allocator = make();
    let mut suite = Suite::new(&allocator, spec);
    let mut kept = Vec::new();
    for (id, &size) in spec.sizes.iter().enumerate() {
        if let Some(mut storage) = suite.zeroed(size)? {
            pattern::write(&mut storage, id as u64);
            kept.push((id as u64, storage));
        }
        // Something waits in every pool when the allocator goes.
        drop(suite.uninit(size)?);
    }
    let report = suite.report;
    drop(allocator);
    std::thread::scope(|scope| {
        let checked = scope.spawn(move || {
            for (id, storage) in kept {
                pattern::check(&storage, id, "storage outlives its allocator")?;
            }
            Ok(())
        });
        checked
            .join()
            .unwrap_or_else(|_| Err(Violation::new("nothing panics", "a release did")))
    })?;
    Ok(report)
}

/// An allocator under test.
struct Suite<'a, A: ?Sized> {
    allocator: &'a A,
    spec: &'a Spec,
    report: Report,
}

impl<'a, A: ?Sized> Suite<'a, A> {
    fn new(allocator: &'a A, spec: &'a Spec) -> Self {
        Self {
            allocator,
            spec,
            report: Report::default(),
        }
    }

    fn count<T>(&mut self, result: Result<T, StorageError>) -> Result<Option<T>, Violation> {
        match result {
            Ok(value) => {
                self.report.served += 1;
                Ok(Some(value))
            }
            Err(error) if self.spec.refusals && error.is_out_of_memory() => {
                self.report.refused += 1;
                Ok(None)
            }
            Err(error) => Err(Violation::new("requests are served", error.to_string())),
        }
    }

    fn zeroed<S>(&mut self, size: usize) -> Result<Option<S>, Violation>
    where
        S: Storage + StorageMemset,
        A: StorageAllocator<S>,
    {
        let result = self.allocator.allocate(size);
        self.count(result)
    }

    fn uninit<S: Storage>(&mut self, size: usize) -> Result<Option<Uninit<S>>, Violation>
    where
        A: StorageAllocator<S>,
    {
        let result = Request::new(size).and_then(|request| self.allocator.request(request));
        self.count(result)
    }
}
