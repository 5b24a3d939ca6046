//! What a policy is told about a use of a block.

/// One use of one block by one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The block's identity: the hash of its tokens and all before them.
    pub sequence_hash: u128,
    /// The block's place in the chain, 0 for the first.
    pub position: u32,
    /// The request that uses it.
    pub request: Request,
}

/// What all uses of blocks by one request have in common.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Request {
    /// The requests that the pool has seen before this one.
    pub tick: u64,
    /// Time of arrival, milliseconds from any fixed instant; monotone.
    pub time_ms: u64,
    /// Length of the request's chain, as far as it is known now.
    pub chain_blocks: u32,
    /// Leading blocks of the chain that were found in the pool.
    pub matched_blocks: u32,
    /// Larger is kept longer, by policies that heed it; 0 if the caller has no opinion.
    pub priority: u8,
    /// No request is known that missed the block: it was decoded, say, or came long after. `tick` and `time_ms` are those of the newest request
    /// then, of which the rest says nothing.
    pub is_unasked: bool,
    /// What the policy knew of the last block that was found; see
    /// [`EvictionPolicy::heritage`](super::EvictionPolicy::heritage).
    pub heritage: Heritage,
}

/// What a policy hands down from the found part of a chain to the blocks appended to it. The meaning of
/// the number is the policy's own; the default means that nothing was found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Heritage(pub u64);
