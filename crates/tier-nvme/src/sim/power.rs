//! The power fails at each operation of a bounded workload in turn, and again at each of the recovery.

use std::fmt::Debug;

use super::{SimVolume, Survival};

/// What may survive a power loss: nothing, everything, and what lies between by several seeds.
pub const SURVIVALS: [(Survival, u64); 8] = [
    (Survival::Nothing, 0),
    (Survival::Everything, 0),
    (Survival::ByWrite, 1),
    (Survival::ByWrite, 2),
    (Survival::BySector, 1),
    (Survival::BySector, 2),
    (Survival::BySector, 3),
    (Survival::BySector, 4),
];

/// A bounded, deterministic workload on a simulated volume, and what must be true of the disk that it leaves.
pub trait Workload {
    /// What is open: dropping it after a power loss reaches nothing any more.
    type Opened;

    /// Why something did not work.
    type Error: Debug;

    /// Runs from the beginning until the end or the first failure, and remembers what was acknowledged.
    ///
    /// # Errors
    /// The first failure.
    fn run(&mut self) -> Result<(), Self::Error>;

    /// Lets go of all that is open, after a power loss.
    fn forget(&mut self);

    /// Opens what is on `volume`, a copy of the workload's, and so recovers it.
    ///
    /// # Errors
    /// When it can't be opened.
    fn open(&self, volume: &SimVolume) -> Result<Self::Opened, Self::Error>;

    /// Opens what is on `volume`, a copy of the workload's, and demands that it holds what was acknowledged;
    /// `what` says where the power failed.
    ///
    /// # Panics
    /// When it does not.
    fn check(&self, volume: &SimVolume, what: &str);
}

/// How often the power failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PowerFailures {
    /// Operations of the workload.
    pub points: u64,
    /// Operations of recoveries.
    pub recoveries: u64,
}

/// Runs the workload that `begin` makes on an empty volume again and again: the power fails at its first
/// operation, at its second, and so on, and each of `survivals` is what is left. Where `is_followed` says so
/// of the operation and the seed, the power fails again at each operation of the recovery.
///
/// # Errors
/// When the workload, or opening what it left, fails although the power did not.
///
/// # Panics
/// As [`Workload::check`] does.
pub fn fail_power_everywhere<W: Workload>(
    survivals: &[(Survival, u64)],
    begin: impl Fn(SimVolume) -> W,
    is_followed: impl Fn(u64, u64) -> bool,
) -> Result<PowerFailures, W::Error> {
    let mut failures = PowerFailures::default();
    loop {
        let at = failures.points;
        for &(survival, seed) in survivals {
            let volume = SimVolume::new(seed);
            volume.fail_power_after(at);
            let mut workload = begin(volume.clone());
            let ended = workload.run();
            if volume.operations() <= at {
                return ended.map(|()| failures);
            }
            volume.crash_keeping(survival);
            workload.forget();
            let what = format!("operation {at} {survival:?} {seed}");
            workload.check(&volume.fork(seed), &what);
            if is_followed(at, seed) {
                failures.recoveries += fail_recoveries(&workload, &volume, &what)?;
            }
        }
        failures.points += 1;
    }
}

/// The power fails at each operation of opening `volume`; returns how many there are.
fn fail_recoveries<W: Workload>(
    workload: &W,
    volume: &SimVolume,
    what: &str,
) -> Result<u64, W::Error> {
    let mut at = 0;
    loop {
        for (survival, seed) in [(Survival::Nothing, 0), (Survival::BySector, at)] {
            let volume = volume.fork(seed);
            volume.fail_power_after(at);
            let before = volume.operations();
            let opened = workload.open(&volume);
            if volume.operations() - before <= at {
                return opened.map(|_| at);
            }
            volume.crash_keeping(survival);
            drop(opened);
            workload.check(&volume, &format!("{what}, recovery at {at} {survival:?}"));
        }
        at += 1;
    }
}
