//! What keeps the identities of different models and tenants apart.

use std::fmt;

use super::{BlockHash, SequenceHash};

/// Domain of the key derivation. Another version of the identity takes another text.
const CONTEXT: &str = "stepwell blockmgr 2026 block identity v1";

/// The most bytes that are hashed from the stack.
const INLINE_BYTES: usize = 2048;

/// The key under which identities are made: from the model, and the tenant, the adapter and a secret where there
/// are such. Blocks of different salts never match.
///
/// ```
/// use blockmgr::Salt;
///
/// let plain = Salt::new("llama-3-8b");
/// let tenant = Salt::new("llama-3-8b").with_tenant("acme");
/// assert_ne!(plain.block_hash(&[1, 2, 3]), tenant.block_hash(&[1, 2, 3]));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Salt {
    key: [u8; 32],
}

impl Salt {
    /// For one model. The name covers all that changes the content: revision, precision, page size.
    pub fn new(model: &str) -> Self {
        Self {
            key: blake3::derive_key(CONTEXT, model.as_bytes()),
        }
    }

    /// The same, apart from all other tenants.
    pub fn with_tenant(self, tenant: &str) -> Self {
        self.with("tenant", tenant.as_bytes())
    }

    /// The same, apart from all other adapters.
    pub fn with_lora(self, adapter: &str) -> Self {
        self.with("lora", adapter.as_bytes())
    }

    /// The same, with bytes that nobody else knows: others can't even compute an identity then.
    pub fn with_secret(self, secret: &[u8]) -> Self {
        self.with("secret", secret)
    }

    fn with(self, field: &str, value: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field.as_bytes());
        hasher.update(value);
        Self {
            key: *hasher.finalize().as_bytes(),
        }
    }

    /// A number that tells salts apart and from which no key can be computed.
    pub fn fingerprint(&self) -> u64 {
        first_half(&blake3::keyed_hash(&self.key, b"f")) as u64
    }

    /// The hash of a block's own tokens.
    pub fn block_hash(&self, tokens: &[u32]) -> BlockHash {
        // A leading byte keeps block and sequence hashes apart.
        let mut inline = [0; INLINE_BYTES];
        let len_bytes = 1 + 4 * tokens.len();
        if let Some(bytes) = inline.get_mut(..len_bytes) {
            if let Some((domain, words)) = bytes.split_first_mut() {
                *domain = b'b';
                for (word, token) in words.chunks_exact_mut(4).zip(tokens) {
                    word.copy_from_slice(&token.to_le_bytes());
                }
            }
            return BlockHash::new(first_half(&blake3::keyed_hash(&self.key, bytes)));
        }
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(b"b");
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        BlockHash::new(first_half(&hasher.finalize()))
    }

    /// The hash of the sequence that ends with this block. `position` is the block's, 0 for the first.
    pub fn sequence_hash(
        &self,
        parent: Option<SequenceHash>,
        block: BlockHash,
        position: u32,
    ) -> SequenceHash {
        let mut bytes = [0; 38];
        let parent_bytes = parent.map_or(0, SequenceHash::as_u128).to_le_bytes();
        bytes[0] = b's';
        bytes[1] = u8::from(parent.is_some());
        bytes[2..18].copy_from_slice(&parent_bytes);
        bytes[18..34].copy_from_slice(&block.as_u128().to_le_bytes());
        bytes[34..].copy_from_slice(&position.to_le_bytes());
        let hash = first_half(&blake3::keyed_hash(&self.key, &bytes));
        SequenceHash::new(hash, position)
    }
}

impl fmt::Debug for Salt {
    /// Shows nothing of the key, which may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salt").finish_non_exhaustive()
    }
}

fn first_half(hash: &blake3::Hash) -> u128 {
    let mut half = [0; 16];
    for (target, source) in half.iter_mut().zip(hash.as_bytes()) {
        *target = *source;
    }
    u128::from_le_bytes(half)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_separates() {
        let base = || Salt::new("m");
        let salts = [
            base(),
            Salt::new("n"),
            base().with_tenant("x"),
            base().with_tenant("y"),
            base().with_lora("x"),
            base().with_secret(b"x"),
            base().with_tenant("x").with_lora("x"),
        ];
        for (i, one) in salts.iter().enumerate() {
            for other in &salts[..i] {
                assert_ne!(one.block_hash(&[7]), other.block_hash(&[7]));
            }
        }
    }

    #[test]
    fn a_long_block_hashes_as_a_short_one_does() {
        // Both ways of hashing meet at the size of the buffer.
        let salt = Salt::new("m");
        let tokens: Vec<u32> = (0..4096).collect();
        for count in [0, 1, 510, 511, 512, 513, 4096] {
            let tokens = &tokens[..count];
            let mut hasher = blake3::Hasher::new_keyed(&salt.key);
            hasher.update(b"b");
            tokens.iter().for_each(|token| {
                hasher.update(&token.to_le_bytes());
            });
            let expected = BlockHash::new(first_half(&hasher.finalize()));
            assert_eq!(salt.block_hash(tokens), expected, "{count} tokens");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", Salt::new("m")), "Salt { .. }");
    }
}
