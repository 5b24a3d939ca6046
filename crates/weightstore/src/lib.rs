//! Content-addressed, deduplicated, compressed model weights.
