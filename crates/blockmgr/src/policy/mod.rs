//! Which block leaves when room is needed.
//!
//! A pool has a fixed number of slots. A policy knows each slot by its number, keeps what it must remember
//! in arrays of that size made once, and allocates nothing afterwards. For the policy a slot is in one of
//! three states:
//!
//! ```text
//! vacant ──insert──▶ pinned ──release──▶ evictable ──evict──▶ vacant
//!                      ▲                     │
//!                      └────────pin──────────┘        remove: from either to vacant
//! ```
//!
//! [`PolicyKind`] names the policies of this crate and builds a [`Policy`]; one of your own implements
//! [`EvictionPolicy`] and goes in as [`Policy::Custom`].

mod access;
mod adaptive;
mod arc;
mod ceiling;
mod frequency;
mod history;
mod kind;
mod lineage;
mod list;
mod lru;
mod multi_lru;
mod priority;
mod s3_fifo;
mod slot;
mod w_tiny_lfu;

pub use access::{Access, Heritage, Request};
pub use adaptive::Adaptive;
pub use arc::Arc;
pub use ceiling::HitCeiling;
#[cfg(any(test, feature = "trace"))]
pub(crate) use ceiling::mix;
pub use kind::{Policy, PolicyKind, UnknownPolicy};
pub use lineage::Lineage;
pub use lru::Lru;
pub use multi_lru::MultiLru;
pub use priority::Priority;
pub use s3_fifo::S3Fifo;
pub use slot::Slot;
pub use w_tiny_lfu::WTinyLfu;

/// So many hits of one block are worth telling at once.
const TIMES_MAX: u32 = 16;

/// What instances of a policy learn together, apart from choosing.
pub trait Study: Send + Sync {
    /// Takes in what instances have noted since the last time, unless another thread is at it.
    fn study(&self);
}

/// Chooses the block that leaves.
///
/// The pool calls it under its own lock, so there is no synchronisation inside. Blocks are matched and let go without that lock: a policy is told of it
/// before it has to choose, in order for each request and a little late. A slot that was matched in between may be chosen; the pool keeps its block, and
/// inserts it anew. A call that names a slot in the wrong state (or
/// none of this pool) is a fault of the pool: policies must stay in bounds and keep their counts right for
/// all others, and need not report it. A policy that panics ends the call of the pool with that: slots that were being taken or registered are
/// free afterwards, blocks that the caller would have got are let go, and the pool goes on. Of a block that the panicking call was about the policy may
/// believe what is not so; if it believes it in use, the block stays until it is matched or removed.
pub trait EvictionPolicy: Send {
    /// A block was registered in the vacant `slot`; it is in use, so the slot is pinned.
    fn insert(&mut self, slot: Slot, access: &Access);

    /// A request matched the block in `slot`, which nobody used: the slot is evictable. The state stays as it is; `pin` follows.
    fn hit(&mut self, slot: Slot, access: &Access);

    /// More requests matched the block while it was in use; told when it is in use no more, before its `release`, or with another `pin` behind it if it came into use again before
    /// the policy knew that it had been let go. There were so many, of
    /// which `access` is the newest, with the largest of their priorities. The slot is pinned, and stays so. If this is not implemented, each of the first
    /// few is a `release`, a `hit` and a `pin`, as if they had come one after the other.
    fn hit_again(&mut self, slot: Slot, access: &Access, times: u32) {
        for _ in 0..times.min(TIMES_MAX) {
            self.release(slot);
            self.hit(slot, access);
            self.pin(slot);
        }
    }

    /// The block in `slot` came into use and must not be chosen. Nothing happens if it was pinned.
    fn pin(&mut self, slot: Slot);

    /// The last user of the block let go. A pool releases the blocks of a request from the last to the
    /// first, so that among equals the leaf of a chain is the older one. Nothing happens if it was evictable.
    fn release(&mut self, slot: Slot);

    /// Chooses an evictable slot and makes it vacant; `None` if there is none.
    fn evict(&mut self) -> Option<Slot>;

    /// The block left `slot` for a reason of its own (a reset, a corruption). Nothing happens if it was vacant.
    fn remove(&mut self, slot: Slot);

    /// How many slots are evictable.
    fn evictable_slots(&self) -> u32;

    /// Requests came to this one. What victims are worth may depend on it.
    fn advance(&mut self, tick: u64) {
        let _ = tick;
    }

    /// Work that the instances of a pool leave to be done now and then while none of them is locked. A pool asks the first one when it is made.
    fn study(&self) -> Option<std::sync::Arc<dyn Study>> {
        None
    }

    /// What the next victim is worth, the less the sooner it should leave; infinite if there is none. A pool makes room
    /// where it is least, so it is for policies whose instances agree on what a block is worth. `None`, if this is not one: then
    /// the pool makes room where victims were used longest ago.
    fn victim_worth(&self) -> Option<f32> {
        None
    }

    /// What the policy knows of the chain that ends in `slot`. A pool asks for it after `insert`. What it was told of the last block that a
    /// request matched, or of the parent, it passes in [`Request::heritage`] to the blocks that follow: they may
    /// live in another shard, with another instance of the policy.
    fn heritage(&self, slot: Slot) -> Heritage {
        let _ = slot;
        Heritage::default()
    }
}
