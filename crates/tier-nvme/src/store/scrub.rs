//! How much a verification reads, how fast, and from where on.

use std::time::{Duration, Instant};

/// A place between two segments where a verification stopped, to go on from there later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VerifyPosition(u64);

impl VerifyPosition {
    /// The position of this number, as [`to_u64`](Self::to_u64) gave it; 0 is the beginning.
    pub fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// A number to keep.
    pub fn to_u64(self) -> u64 {
        self.0
    }
}

/// What a verification reads.
///
/// ```
/// use tier_nvme::sim::SimVolume;
/// use tier_nvme::{NvmeStore, StorageConfig, VerifyOptions};
///
/// let config = StorageConfig::default().with_segment_bytes(1 << 20);
/// let store = NvmeStore::on_volume(SimVolume::new(1).handle(), config)?;
/// store.write_aligned("a", &[7; 5000])?;
/// let mut options = VerifyOptions::default().with_bytes_max(Some(4096));
/// loop {
///     let report = store.verify_with(&options)?;
///     assert!(report.is_whole());
///     match report.stopped_at {
///         Some(position) => options = options.with_start(position),
///         None => break,
///     }
/// }
/// # Ok::<(), tier_nvme::NvmeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyOptions {
    pub(super) start: VerifyPosition,
    pub(super) values: bool,
    pub(super) bytes_max: Option<u64>,
    pub(super) bytes_per_second_max: Option<u64>,
}

impl Default for VerifyOptions {
    /// Everything, as fast as it can be read.
    fn default() -> Self {
        Self {
            start: VerifyPosition::default(),
            values: true,
            bytes_max: None,
            bytes_per_second_max: None,
        }
    }
}

impl VerifyOptions {
    /// Where to go on; superblock and checkpoints are read only at the beginning.
    #[must_use]
    pub fn with_start(mut self, position: VerifyPosition) -> Self {
        self.start = position;
        self
    }

    /// Whether to read values, and not only the structures around them.
    #[must_use]
    pub fn with_values(mut self, values: bool) -> Self {
        self.values = values;
        self
    }

    /// Bytes of values after which to stop, at the end of a segment; `None` for no limit.
    #[must_use]
    pub fn with_bytes_max(mut self, bytes: Option<u64>) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Most bytes of values to read in a second; `None` for no limit. The calling thread sleeps meanwhile.
    #[must_use]
    pub fn with_bytes_per_second_max(mut self, bytes: Option<u64>) -> Self {
        self.bytes_per_second_max = bytes;
        self
    }
}

/// Holds what is read to a rate.
#[derive(Debug)]
pub(super) struct Throttle {
    begun: Instant,
    bytes: u64,
    bytes_per_second_max: Option<u64>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second_max: Option<u64>) -> Self {
        Self {
            begun: Instant::now(),
            bytes: 0,
            bytes_per_second_max,
        }
    }

    /// Notes what was read, and sleeps for as long as that was too fast.
    pub(super) fn passed(&mut self, bytes: u64) {
        let Some(rate) = self.bytes_per_second_max else {
            return;
        };
        self.bytes += bytes;
        let due = Duration::from_secs_f64(self.bytes as f64 / rate.max(1) as f64);
        std::thread::sleep(due.saturating_sub(self.begun.elapsed()));
    }
}
