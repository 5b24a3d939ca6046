//! What the process has used.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What the process has used so far, all of its threads together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessUsage {
    /// Processor time, in the program and in the kernel.
    pub cpu: Duration,
    /// Bytes sent to devices, or to the page cache on their way there; 0 where the kernel does not say.
    pub written_bytes: u64,
}

impl ProcessUsage {
    /// Looks at it now.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
        let counts = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let written = counts
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        Self {
            cpu: Duration::new(seconds, nanoseconds),
            written_bytes: written.and_then(|count| count.parse().ok()).unwrap_or(0),
        }
    }

    /// What was used since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
        }
    }
}
