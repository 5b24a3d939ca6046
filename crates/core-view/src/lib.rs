//! Zero-copy buffers, tensor views and the contracts that storage tiers share.
