//! Which tier data belongs on.

use core_alloc::StorageType;

use super::{ContractError, ErrorKind};

/// Chooses a tier by how often data is used and how large it is, among the tiers that are there.
///
/// Data used more often than `hot_frequency` goes to the device; data used more often than
/// `warm_frequency` and smaller than `warm_bytes_max` to pinned memory; everything else to disk. A
/// tier that is absent hands on to the next one down, and the lowest to the next one up.
///
/// ```
/// use core_alloc::StorageType;
/// use core_view::contract::TierChoice;
///
/// let choice = TierChoice::default().with_device(Some(0)).with_pinned(true);
/// assert_eq!(choice.get_optimal_storage(0.9, 4096)?, StorageType::Device(0));
/// assert_eq!(choice.get_optimal_storage(0.5, 4096)?, StorageType::Pinned);
/// assert_eq!(choice.get_optimal_storage(0.1, 4096)?, StorageType::Disk(0));
/// let cpu_only = TierChoice::default();
/// assert_eq!(cpu_only.get_optimal_storage(0.9, 4096)?, StorageType::System);
/// # Ok::<(), core_view::contract::ContractError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierChoice {
    hot_frequency: f64,
    warm_frequency: f64,
    warm_bytes_max: usize,
    device: Option<u32>,
    pinned: bool,
    system: bool,
    disk: Option<u64>,
}

impl Default for TierChoice {
    /// Hot above 0.8, warm above 0.3 and below 100 MiB; system memory and disk region 0 are there.
    fn default() -> Self {
        Self {
            hot_frequency: 0.8,
            warm_frequency: 0.3,
            warm_bytes_max: 100 << 20,
            device: None,
            pinned: false,
            system: true,
            disk: Some(0),
        }
    }
}

impl TierChoice {
    /// Data used more often than this belongs on the device.
    #[must_use]
    pub fn with_hot_frequency(mut self, frequency: f64) -> Self {
        self.hot_frequency = frequency;
        self
    }

    /// Data used more often than this belongs in host memory.
    #[must_use]
    pub fn with_warm_frequency(mut self, frequency: f64) -> Self {
        self.warm_frequency = frequency;
        self
    }

    /// Warm data of this many bytes or more belongs on disk all the same.
    #[must_use]
    pub fn with_warm_bytes_max(mut self, bytes: usize) -> Self {
        self.warm_bytes_max = bytes;
        self
    }

    /// The device that is there, by its ordinal.
    #[must_use]
    pub fn with_device(mut self, ordinal: Option<u32>) -> Self {
        self.device = ordinal;
        self
    }

    /// Whether there is pinned memory.
    #[must_use]
    pub fn with_pinned(mut self, present: bool) -> Self {
        self.pinned = present;
        self
    }

    /// Whether there is system memory to use.
    #[must_use]
    pub fn with_system(mut self, present: bool) -> Self {
        self.system = present;
        self
    }

    /// The disk region that is there.
    #[must_use]
    pub fn with_disk(mut self, region: Option<u64>) -> Self {
        self.disk = region;
        self
    }

    /// The tier for `size` bytes that are used with `access_frequency` (0 to 1).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the frequency is not a number or no tier is there at all.
    pub fn get_optimal_storage(
        &self,
        access_frequency: f64,
        size: usize,
    ) -> Result<StorageType, ContractError> {
        if access_frequency.is_nan() {
            return Err(ContractError::new(ErrorKind::InvalidInput, "choose tier")
                .detail("the access frequency is not a number"));
        }
        let tiers = [
            self.device.map(StorageType::Device),
            self.pinned.then_some(StorageType::Pinned),
            self.system.then_some(StorageType::System),
            self.disk.map(StorageType::Disk),
        ];
        let first = if access_frequency > self.hot_frequency {
            0
        } else if access_frequency > self.warm_frequency && size < self.warm_bytes_max {
            1
        } else {
            3
        };
        let (above, from_first) = tiers.split_at(first);
        let down = from_first.iter().flatten().next();
        let up = || above.iter().rev().flatten().next();
        down.or_else(up).copied().ok_or_else(|| {
            ContractError::new(ErrorKind::InvalidInput, "choose tier")
                .detail("no tier is there; name at least one")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_tiers_are_skipped_in_both_directions() {
        let none = TierChoice::default().with_system(false).with_disk(None);
        assert!(none.get_optimal_storage(0.5, 1).is_err());
        assert!(
            TierChoice::default()
                .get_optimal_storage(f64::NAN, 1)
                .is_err()
        );
        let pinned_only = none.with_pinned(true);
        for frequency in [0.0, 0.5, 1.0] {
            let chosen = pinned_only
                .get_optimal_storage(frequency, usize::MAX)
                .unwrap();
            assert_eq!(chosen, StorageType::Pinned);
        }
        let large = TierChoice::default()
            .get_optimal_storage(0.5, 100 << 20)
            .unwrap();
        assert_eq!(large, StorageType::Disk(0));
    }
}
