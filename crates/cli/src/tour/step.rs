//! One step of the tour, beside the time that the machine needs for it at least.

use serde::Serialize;

use super::floor::Floor;
use crate::quantity::rate;

/// What a step has to do at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Bytes of content.
    pub(super) bytes: u64,
    /// Bytes of it that are hashed.
    pub(super) hashed_bytes: u64,
    /// Bytes that come from the device.
    pub(super) read_bytes: u64,
    /// Bytes that go to the device.
    pub(super) written_bytes: u64,
}

/// A step and how fast it was.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    pub(super) step: &'static str,
    pub(super) bytes: u64,
    pub(super) elapsed_s: f64,
    pub(super) bytes_per_s: f64,
    /// The same bytes in the time that hashing them on all cores, or moving them to and from the device,
    /// takes; the longer of both.
    pub(super) floor_bytes_per_s: f64,
    /// Which of both it is.
    pub(super) limited_by: &'static str,
    /// `bytes_per_s / floor_bytes_per_s`.
    pub(super) ratio: f64,
}

impl Step {
    pub(super) fn new(step: &'static str, work: Work, elapsed_s: f64, floor: &Floor) -> Self {
        let hash_s = work.hashed_bytes as f64 / (floor.sha256_bytes_per_s * floor.cores as f64);
        let device_s = work.read_bytes as f64 / floor.read_bytes_per_s
            + work.written_bytes as f64 / floor.write_bytes_per_s;
        let (floor_s, limited_by) = if hash_s >= device_s {
            (hash_s, "SHA-256 on all cores")
        } else {
            (device_s, "device")
        };
        Self {
            step,
            bytes: work.bytes,
            elapsed_s,
            bytes_per_s: rate(work.bytes, elapsed_s),
            floor_bytes_per_s: rate(work.bytes, floor_s),
            limited_by,
            ratio: floor_s / elapsed_s.max(1e-9),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_hashing_and_moving_is_the_floor() {
        let floor = Floor {
            mode: "direct",
            write_bytes_per_s: 100.0,
            read_bytes_per_s: 200.0,
            sha256_bytes_per_s: 500.0,
            cores: 2,
        };
        let work = |read_bytes, written_bytes| Work {
            bytes: 1000,
            hashed_bytes: 1000,
            read_bytes,
            written_bytes,
        };
        let moved = Step::new("s", work(1000, 1000), 30.0, &floor);
        assert_eq!((moved.limited_by, moved.ratio), ("device", 0.5));
        let hashed = Step::new("s", work(0, 10), 2.0, &floor);
        assert_eq!(
            (hashed.limited_by, hashed.ratio),
            ("SHA-256 on all cores", 0.5)
        );
        assert_eq!(hashed.floor_bytes_per_s, 1000.0);
    }
}
