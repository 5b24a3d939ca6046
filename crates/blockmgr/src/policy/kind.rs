//! The policies by name.

use super::{Access, EvictionPolicy, Heritage, Lru, Slot};

/// Names a policy of this crate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyKind {
    /// Least recently used.
    #[default]
    Lru,
}

impl PolicyKind {
    /// A policy of this kind for a pool of `slots` slots, all vacant.
    pub fn build(self, slots: u32) -> Policy {
        match self {
            Self::Lru => Policy::Lru(Lru::new(slots)),
        }
    }
}

/// A policy of this crate, called without indirection, or one of your own.
#[non_exhaustive]
pub enum Policy {
    /// Least recently used.
    Lru(Lru),
    /// Any other.
    Custom(Box<dyn EvictionPolicy>),
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Lru(_) => "Lru",
            Self::Custom(_) => "Custom",
        })
    }
}

macro_rules! each {
    ($self:expr, $policy:ident => $call:expr) => {
        match $self {
            Policy::Lru($policy) => $call,
            Policy::Custom($policy) => $call,
        }
    };
}

impl EvictionPolicy for Policy {
    #[inline]
    fn insert(&mut self, slot: Slot, access: &Access) {
        each!(self, policy => policy.insert(slot, access));
    }

    #[inline]
    fn hit(&mut self, slot: Slot, access: &Access) {
        each!(self, policy => policy.hit(slot, access));
    }

    #[inline]
    fn pin(&mut self, slot: Slot) {
        each!(self, policy => policy.pin(slot));
    }

    #[inline]
    fn release(&mut self, slot: Slot) {
        each!(self, policy => policy.release(slot));
    }

    #[inline]
    fn evict(&mut self) -> Option<Slot> {
        each!(self, policy => policy.evict())
    }

    #[inline]
    fn remove(&mut self, slot: Slot) {
        each!(self, policy => policy.remove(slot));
    }

    #[inline]
    fn evictable_slots(&self) -> u32 {
        each!(self, policy => policy.evictable_slots())
    }

    #[inline]
    fn heritage(&self, slot: Slot) -> Heritage {
        each!(self, policy => policy.heritage(slot))
    }
}
