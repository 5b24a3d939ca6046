//! Failures on purpose.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Request, Storage, StorageAllocator, StorageError, StorageType, Uninit};

/// Which requests a [`Fault`] fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plan {
    Nth(u64),
    Every(u64),
    Probability { threshold: u64, seed: u64 },
}

/// Fails chosen requests with [`StorageError::Injected`] before they reach the allocator inside.
///
/// Requests are counted from 1 in the order in which they arrive. Whether the n-th fails depends on
/// the plan and on n alone, so that a seed reproduces a run, and with several threads the set of
/// failing numbers.
///
/// ```
/// use core_alloc::{Fault, StorageAllocator, SystemAllocator};
///
/// let fault = Fault::nth(SystemAllocator, 2);
/// assert!(fault.allocate(64).is_ok());
/// assert!(fault.allocate(64).is_err());
/// assert!(fault.allocate(64).is_ok());
/// assert_eq!((fault.requests(), fault.injected()), (3, 1));
/// ```
#[derive(Debug)]
pub struct Fault<A> {
    inner: A,
    plan: Plan,
    requests: AtomicU64,
    injected: AtomicU64,
}

impl<A> Fault<A> {
    fn new(inner: A, plan: Plan) -> Self {
        Self {
            inner,
            plan,
            requests: AtomicU64::new(0),
            injected: AtomicU64::new(0),
        }
    }

    /// Fails the `n`-th request, counted from 1, and no other; none if `n` is 0.
    pub fn nth(inner: A, n: u64) -> Self {
        Self::new(inner, Plan::Nth(n))
    }

    /// Fails each `n`-th request: the n-th, the 2n-th and so on; none if `n` is 0.
    pub fn every(inner: A, n: u64) -> Self {
        Self::new(inner, Plan::Every(n))
    }

    /// Fails each request with a probability, decided by a generator that starts from `seed`.
    ///
    /// # Errors
    /// [`StorageError::InvalidConfig`] if the probability is not from 0 to 1.
    pub fn probability(inner: A, probability: f64, seed: u64) -> Result<Self, StorageError> {
        if !(0.0..=1.0).contains(&probability) {
            return Err(StorageError::InvalidConfig {
                field: "probability",
                reason: format!("{probability} does not lie from 0 to 1"),
            });
        }
        // Saturates, so that a probability of 1 fails every request but the one in 2⁶⁴ that draws the
        // largest number; `fails` takes that one too.
        let threshold = (probability * 2f64.powi(64)) as u64;
        Ok(Self::new(inner, Plan::Probability { threshold, seed }))
    }

    /// Requests seen so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire)
    }

    /// Requests failed on purpose so far.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Acquire)
    }

    /// The allocator that is made to fail.
    pub fn inner(&self) -> &A {
        &self.inner
    }
}

impl Plan {
    fn fails(self, nth: u64) -> bool {
        match self {
            Self::Nth(n) => nth == n,
            Self::Every(n) => n != 0 && nth.is_multiple_of(n),
            Self::Probability { threshold, seed } => {
                threshold == u64::MAX || mix(seed, nth) < threshold
            }
        }
    }
}

/// The `nth` output of the SplitMix64 generator (Steele, Lea and Flood, "Fast splittable pseudorandom
/// number generators", 2014) from `seed`.
fn mix(seed: u64, nth: u64) -> u64 {
    let mut z = seed.wrapping_add(nth.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl<S: Storage, A: StorageAllocator<S>> StorageAllocator<S> for Fault<A> {
    fn storage_type(&self) -> StorageType {
        self.inner.storage_type()
    }

    fn alignment_bytes(&self) -> usize {
        self.inner.alignment_bytes()
    }

    fn request(&self, request: Request) -> Result<Uninit<S>, StorageError> {
        let nth = self.requests.fetch_add(1, Ordering::AcqRel) + 1;
        if self.plan.fails(nth) {
            self.injected.fetch_add(1, Ordering::AcqRel);
            return Err(StorageError::Injected {
                nth,
                requested_bytes: request.size(),
            });
        }
        self.inner.request(request)
    }
}

#[cfg(test)]
mod tests {
    use super::mix;

    /// The first outputs for seed 1234567, as published with the generator's reference code.
    #[test]
    fn the_generator_is_splitmix64() {
        let outputs: Vec<u64> = (1..=3).map(|nth| mix(1_234_567, nth)).collect();
        assert_eq!(
            outputs,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }
}
