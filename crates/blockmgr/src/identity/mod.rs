//! Which block is which.
//!
//! A block's content depends on its tokens and on all tokens before it, so its identity is a chain: the
//! [`BlockHash`] of its own tokens, and the [`SequenceHash`] of that and the sequence hash of the block before.
//! Both are 128 bits of BLAKE3 under a key that a [`Salt`] derives from the model, the tenant and the adapter.
//!
//! BLAKE3 rather than a faster keyed hash, because a key is often no secret: whoever knows the names behind the
//! salt must still not be able to make two contents with one identity. SipHash, xxh3 and the like promise
//! nothing once the key is known.

mod salt;
mod sequence_hash;
mod token_sequence;

pub use salt::Salt;
pub use sequence_hash::{BlockHash, SequenceHash};
pub use token_sequence::{BlockIdentity, TokenBlock, TokenSequence, verify_tokens};
