//! The life of a block, in types.
//!
//! ```text
//!  allocate          fill            register               drop the last
//! ──────────▶ Mutable ────▶ Complete ─────────▶ Immutable ─────────────────▶ cached, evictable
//!                │             │                 ▲   │ downgrade                │
//!                └─────────────┴─ drop: free     └───┴──▶ Weak ── upgrade ◀─────┘ match
//! ```
//!
//! Each comes alone and as a batch of one pool, which costs less. What is dropped goes back to its pool at once, on
//! the thread that drops it.

mod complete;
mod immutable;
mod mutable;
mod taken;
mod weak;

pub use complete::{CompleteBlock, CompleteBlocks};
pub use immutable::{ImmutableBlock, ImmutableBlocks};
pub use mutable::{MutableBlock, MutableBlocks};
pub use weak::WeakBlock;
