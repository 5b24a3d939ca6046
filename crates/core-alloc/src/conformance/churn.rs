//! Allocation and release from several threads at once.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Report, Suite, Violation, pattern};
use crate::{StorageAllocator, StorageMemset};

/// The most storages that one thread keeps.
const LIVE_MAX: usize = 6;

/// A small generator for the choices of one thread (xorshift64*).
struct Choices(u64);

impl Choices {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        high as usize % end.max(1)
    }
}

/// Threads allocate, write, check, pass on and release.
pub(super) fn threads<S, A>(suite: &mut Suite<'_, A>) -> Result<(), Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S> + ?Sized,
{
    let (allocator, spec) = (suite.allocator, suite.spec);
    let ids = AtomicU64::new(0);
    let reports: Vec<Result<Report, Violation>> = std::thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel::<(u64, S)>();
        let workers: Vec<_> = (0..spec.threads)
            .map(|thread| {
                let (sender, ids) = (sender.clone(), &ids);
                scope.spawn(move || {
                    let mut suite = Suite::new(allocator, spec);
                    let choices = Choices::new(spec.seed.wrapping_add(1 + thread as u64));
                    work(&mut suite, choices, ids, |id, storage| {
                        // The receiver waits for the last sender, so that this can't fail.
                        drop(sender.send((id, storage)));
                    })?;
                    Ok(suite.report)
                })
            })
            .collect();
        drop(sender);
        let passed_on = scope.spawn(move || {
            for (id, storage) in receiver {
                pattern::check(&storage, id, "bytes survive a change of thread")?;
            }
            Ok(Report::default())
        });
        let panicked = |_| Err(Violation::new("nothing panics", "a thread did"));
        workers
            .into_iter()
            .chain([passed_on])
            .map(|handle| handle.join().unwrap_or_else(panicked))
            .collect()
    });
    for report in reports {
        let report = report?;
        suite.report.served += report.served;
        suite.report.refused += report.refused;
    }
    Ok(())
}

fn work<S, A>(
    suite: &mut Suite<'_, A>,
    mut choices: Choices,
    ids: &AtomicU64,
    pass_on: impl Fn(u64, S),
) -> Result<(), Violation>
where
    S: StorageMemset,
    A: StorageAllocator<S> + ?Sized,
{
    let rule = "bytes stay what was written while other threads allocate";
    let mut live: Vec<(u64, S)> = Vec::new();
    for _ in 0..suite.spec.rounds {
        let full = live.len() == LIVE_MAX;
        if !live.is_empty() && (full || choices.below(2) == 0) {
            let (id, storage) = live.swap_remove(choices.below(live.len()));
            pattern::check(&storage, id, rule)?;
            if choices.below(4) == 0 {
                pass_on(id, storage);
            }
            continue;
        }
        let place = choices.below(suite.spec.sizes.len());
        let Some(&size) = suite.spec.sizes.get(place) else {
            return Ok(());
        };
        let Some(mut storage) = suite.zeroed(size)? else {
            continue;
        };
        pattern::check_value(&storage, 0, "allocate hands out zeros to every thread")?;
        let id = ids.fetch_add(1, Ordering::Relaxed);
        pattern::write(&mut storage, id);
        live.push((id, storage));
    }
    for (id, storage) in &live {
        pattern::check(storage, *id, rule)?;
    }
    Ok(())
}
