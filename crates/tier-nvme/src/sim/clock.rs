//! The clock of a simulated volume.

use std::time::Duration;

use super::SimVolume;

/// How long operations take, drawn for each by the seed: what was submitted first is often not what
/// completes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Latency {
    /// Between `min` and `max`.
    pub fn between(min: Duration, max: Duration) -> Self {
        Self { min, max }
    }

    /// What solid-state disks do: 20 µs to 2 ms.
    pub fn of_flash() -> Self {
        Self::between(Duration::from_micros(20), Duration::from_millis(2))
    }
}

/// The time of a simulated volume, which stands still except when it is stepped.
///
/// ```
/// use std::time::Duration;
/// use core_view::BufferMut;
/// use tier_nvme::FileName;
/// use tier_nvme::sim::{Latency, SimVolume};
///
/// let volume = SimVolume::new(7);
/// let clock = volume.clock();
/// let file = volume.handle().create(&FileName::new("file")?, 4096)?;
/// volume.set_latency(Some(Latency::of_flash()));
/// let write = file.write(0, BufferMut::zeroed(4096, 4096)?);
/// assert!(!write.is_done() && volume.in_flight() == 1);
/// clock.advance(Duration::from_millis(3));
/// assert!(write.is_done() && volume.in_flight() == 0);
/// assert_eq!(clock.now(), Duration::from_millis(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SimClock {
    pub(super) volume: SimVolume,
}

impl SimClock {
    /// Time since the volume was made.
    pub fn now(&self) -> Duration {
        self.volume.state().now
    }

    /// Lets `time` pass, and delivers what completes meanwhile on the calling thread.
    pub fn advance(&self, time: Duration) {
        let until = self.now().saturating_add(time);
        while self.volume.step_until(until) {}
        let mut state = self.volume.state();
        state.now = state.now.max(until);
    }
}
