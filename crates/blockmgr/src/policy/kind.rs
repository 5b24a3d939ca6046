//! The policies by name.

use std::str::FromStr;

use super::{
    Access, Adaptive, Arc, EvictionPolicy, Heritage, Lineage, Lru, MultiLru, Priority, S3Fifo,
    Slot, Study, WTinyLfu,
};

/// Names a policy of this crate.
///
/// ```
/// use blockmgr::policy::PolicyKind;
///
/// assert_eq!("s3-fifo".parse(), Ok(PolicyKind::S3Fifo));
/// assert_eq!(PolicyKind::default().name(), "adaptive");
/// assert!("fifo".parse::<PolicyKind>().is_err());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyKind {
    /// What is learned to be worth least; the default.
    #[default]
    Adaptive,
    /// Least recently used.
    Lru,
    /// Least recently used, in levels of frequency.
    MultiLru,
    /// Three queues, first in first out.
    S3Fifo,
    /// Adaptive replacement.
    Arc,
    /// A window before a filter of frequency.
    WTinyLfu,
    /// By the priority of requests.
    Priority,
    /// Leaves first.
    Lineage,
}

impl PolicyKind {
    /// All of them, the default first.
    pub const ALL: [Self; 8] = [
        Self::Adaptive,
        Self::Lru,
        Self::MultiLru,
        Self::S3Fifo,
        Self::Arc,
        Self::WTinyLfu,
        Self::Priority,
        Self::Lineage,
    ];

    /// The name, in lower case with hyphens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Lru => "lru",
            Self::MultiLru => "multi-lru",
            Self::S3Fifo => "s3-fifo",
            Self::Arc => "arc",
            Self::WTinyLfu => "w-tiny-lfu",
            Self::Priority => "priority",
            Self::Lineage => "lineage",
        }
    }

    /// A policy of this kind for a pool of `slots` slots, all vacant.
    pub fn build(self, slots: u32) -> Policy {
        match self {
            Self::Adaptive => Policy::Adaptive(Box::new(Adaptive::new(slots))),
            Self::Lru => Policy::Lru(Lru::new(slots)),
            Self::MultiLru => Policy::MultiLru(MultiLru::new(slots)),
            Self::S3Fifo => Policy::S3Fifo(S3Fifo::new(slots)),
            Self::Arc => Policy::Arc(Arc::new(slots)),
            Self::WTinyLfu => Policy::WTinyLfu(WTinyLfu::new(slots)),
            Self::Priority => Policy::Priority(Priority::new(slots)),
            Self::Lineage => Policy::Lineage(Lineage::new(slots)),
        }
    }

    /// Policies of this kind for the parts of one pool, each of so many slots, all vacant. Those that learn do so together.
    pub fn build_parts(self, slots: &[u32]) -> Vec<Policy> {
        match self {
            Self::Adaptive => Adaptive::in_parts(slots)
                .into_iter()
                .map(|part| Policy::Adaptive(Box::new(part)))
                .collect(),
            _ => slots.iter().map(|&slots| self.build(slots)).collect(),
        }
    }
}

/// There is no policy of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no policy {name:?}; use one of {}", names())]
pub struct UnknownPolicy {
    /// The name asked for.
    pub name: String,
}

fn names() -> String {
    PolicyKind::ALL.map(PolicyKind::name).join(", ")
}

impl FromStr for PolicyKind {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, UnknownPolicy> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| UnknownPolicy {
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for PolicyKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// A policy of this crate, called without indirection, or one of your own.
#[non_exhaustive]
pub enum Policy {
    /// What is learned to be worth least; the default.
    Adaptive(Box<Adaptive>),
    /// Least recently used.
    Lru(Lru),
    /// Least recently used, in levels of frequency.
    MultiLru(MultiLru),
    /// Three queues, first in first out.
    S3Fifo(S3Fifo),
    /// Adaptive replacement.
    Arc(Arc),
    /// A window before a filter of frequency.
    WTinyLfu(WTinyLfu),
    /// By the priority of requests.
    Priority(Priority),
    /// Leaves first.
    Lineage(Lineage),
    /// Any other.
    Custom(Box<dyn EvictionPolicy>),
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Adaptive(_) => "Adaptive",
            Self::Lru(_) => "Lru",
            Self::MultiLru(_) => "MultiLru",
            Self::S3Fifo(_) => "S3Fifo",
            Self::Arc(_) => "Arc",
            Self::WTinyLfu(_) => "WTinyLfu",
            Self::Priority(_) => "Priority",
            Self::Lineage(_) => "Lineage",
            Self::Custom(_) => "Custom",
        })
    }
}

macro_rules! each {
    ($self:expr, $policy:ident => $call:expr) => {
        match $self {
            Policy::Adaptive($policy) => $call,
            Policy::Lru($policy) => $call,
            Policy::MultiLru($policy) => $call,
            Policy::S3Fifo($policy) => $call,
            Policy::Arc($policy) => $call,
            Policy::WTinyLfu($policy) => $call,
            Policy::Priority($policy) => $call,
            Policy::Lineage($policy) => $call,
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

    fn hit_again(&mut self, slot: Slot, access: &Access, times: u32) {
        each!(self, policy => policy.hit_again(slot, access, times));
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
    fn advance(&mut self, tick: u64) {
        each!(self, policy => policy.advance(tick));
    }

    fn study(&self) -> Option<std::sync::Arc<dyn Study>> {
        each!(self, policy => policy.study())
    }

    #[inline]
    fn victim_worth(&self) -> Option<f32> {
        each!(self, policy => policy.victim_worth())
    }

    #[inline]
    fn heritage(&self, slot: Slot) -> Heritage {
        each!(self, policy => policy.heritage(slot))
    }
}
