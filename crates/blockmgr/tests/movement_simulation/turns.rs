//! Time that passes by being looked at.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blockmgr::movement::{Cancellation, Clock};

/// That pass with each look.
const TICK_US: u64 = 40;

/// A clock that a seed decides: it moves on with each look at it, and cancels a call in the middle of it.
#[derive(Debug, Default)]
pub(crate) struct TurnClock {
    looks: AtomicU64,
    alarm: Mutex<Option<(u64, Cancellation)>>,
}

impl TurnClock {
    /// Cancels after so many looks.
    pub(crate) fn cancel_after(&self, looks: u64, cancellation: Cancellation) {
        let at = self.looks.load(Ordering::Relaxed) + looks;
        *self.alarm.lock().unwrap() = Some((at, cancellation));
    }
}

impl Clock for TurnClock {
    fn now(&self) -> Duration {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        let mut alarm = self.alarm.lock().unwrap();
        if alarm.as_ref().is_some_and(|(at, _)| *at <= looks)
            && let Some((_, cancellation)) = alarm.take()
        {
            cancellation.cancel();
        }
        Duration::from_micros(TICK_US * looks)
    }

    fn slice(&self, _left: Duration) -> Duration {
        Duration::ZERO
    }
}
