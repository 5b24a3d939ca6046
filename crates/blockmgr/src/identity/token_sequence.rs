//! A growing sequence of tokens, cut into blocks.

use super::{BlockHash, Salt, SequenceHash};
use crate::Error;

/// Who a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockIdentity {
    /// Of the block and all before it.
    pub sequence_hash: SequenceHash,
    /// Of the block alone.
    pub block_hash: BlockHash,
    /// Of the block before, unless this is the first.
    pub parent: Option<SequenceHash>,
}

/// A full block of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBlock<'a> {
    /// The block's own tokens.
    pub tokens: &'a [u32],
    /// Who it is.
    pub identity: BlockIdentity,
}

/// Tokens of one request, cut into blocks that are identified as they fill.
///
/// ```
/// use blockmgr::{Salt, TokenSequence};
///
/// let mut sequence = TokenSequence::new(Salt::new("llama-3-8b"), 4)?;
/// sequence.extend(&[1, 2, 3, 4, 5, 6])?;
/// assert_eq!(sequence.sequence_hashes().len(), 1);
/// assert_eq!(sequence.partial_tokens(), [5, 6]);
/// sequence.push(7)?;
/// let filled = sequence.push(8)?.ok_or("the second block is full")?;
/// assert_eq!(filled.identity.sequence_hash.position(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct TokenSequence {
    salt: Salt,
    block_tokens: usize,
    tokens: Vec<u32>,
    block_hashes: Vec<BlockHash>,
    sequence_hashes: Vec<SequenceHash>,
}

impl TokenSequence {
    /// An empty sequence whose blocks have `block_tokens` tokens.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] for blocks of no tokens.
    pub fn new(salt: Salt, block_tokens: usize) -> Result<Self, Error> {
        if block_tokens == 0 {
            return Err(Error::InvalidConfig {
                field: "block_tokens",
                value: "0".to_owned(),
                reason: "a block has at least one token",
            });
        }
        Ok(Self {
            salt,
            block_tokens,
            tokens: Vec::new(),
            block_hashes: Vec::new(),
            sequence_hashes: Vec::new(),
        })
    }

    /// Appends a token, and tells the block that it filled.
    ///
    /// # Errors
    /// [`Error::SequenceTooLong`] beyond `u32::MAX` blocks; the token isn't appended then.
    pub fn push(&mut self, token: u32) -> Result<Option<TokenBlock<'_>>, Error> {
        self.extend(&[token])?;
        let full = self.tokens.len().is_multiple_of(self.block_tokens);
        Ok(if full {
            self.block(self.sequence_hashes.len() - 1)
        } else {
            None
        })
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// [`Error::SequenceTooLong`] beyond `u32::MAX` blocks; nothing is appended then.
    pub fn extend(&mut self, tokens: &[u32]) -> Result<(), Error> {
        let blocks = self.tokens.len().saturating_add(tokens.len()) / self.block_tokens;
        if u32::try_from(blocks).is_err() {
            return Err(Error::SequenceTooLong { max: u32::MAX });
        }
        self.tokens.extend_from_slice(tokens);
        let hashed_tokens = self.sequence_hashes.len() * self.block_tokens;
        for block in self.tokens[hashed_tokens..].chunks_exact(self.block_tokens) {
            let position = self.sequence_hashes.len() as u32;
            let block_hash = self.salt.block_hash(block);
            let parent = self.sequence_hashes.last().copied();
            self.block_hashes.push(block_hash);
            self.sequence_hashes
                .push(self.salt.sequence_hash(parent, block_hash, position));
        }
        Ok(())
    }

    /// Forgets all tokens from `len_tokens` on, as when speculation failed.
    pub fn truncate(&mut self, len_tokens: usize) {
        self.tokens.truncate(len_tokens);
        let blocks = self.tokens.len() / self.block_tokens;
        self.block_hashes.truncate(blocks);
        self.sequence_hashes.truncate(blocks);
    }

    /// The identities of all full blocks, in order.
    pub fn sequence_hashes(&self) -> &[SequenceHash] {
        &self.sequence_hashes
    }

    /// The full block at `index`, if there is one.
    pub fn block(&self, index: usize) -> Option<TokenBlock<'_>> {
        let sequence_hash = *self.sequence_hashes.get(index)?;
        let block_hash = *self.block_hashes.get(index)?;
        let start = index * self.block_tokens;
        let parent = index
            .checked_sub(1)
            .map(|before| self.sequence_hashes[before]);
        Some(TokenBlock {
            tokens: self.tokens.get(start..start + self.block_tokens)?,
            identity: BlockIdentity {
                sequence_hash,
                block_hash,
                parent,
            },
        })
    }

    /// The full blocks from `index` on.
    pub fn blocks_from(&self, index: usize) -> impl Iterator<Item = TokenBlock<'_>> {
        (index..self.sequence_hashes.len()).filter_map(|index| self.block(index))
    }

    /// All tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens after the last full block.
    pub fn partial_tokens(&self) -> &[u32] {
        &self.tokens[self.sequence_hashes.len() * self.block_tokens..]
    }

    /// Tokens a block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Under what the identities are made.
    pub fn salt(&self) -> &Salt {
        &self.salt
    }
}

/// Checks identities that were found against the tokens that they must have been made of, block by block from the
/// start of the sequence.
///
/// # Errors
/// [`Error::TokenMismatch`] at the first block whose identity is another, or that `tokens` has no full block for.
pub fn verify_tokens(
    salt: &Salt,
    block_tokens: usize,
    tokens: &[u32],
    found: &[SequenceHash],
) -> Result<(), Error> {
    let mut sequence = TokenSequence::new(salt.clone(), block_tokens)?;
    let len_tokens = found.len().saturating_mul(block_tokens).min(tokens.len());
    sequence.extend(&tokens[..len_tokens])?;
    let mut made = sequence.sequence_hashes().iter();
    for (index, found) in found.iter().enumerate() {
        if made.next() != Some(found) {
            return Err(Error::TokenMismatch {
                position: u32::try_from(index).unwrap_or(u32::MAX),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(block_tokens: usize, tokens: &[u32]) -> TokenSequence {
        let mut sequence = TokenSequence::new(Salt::new("m"), block_tokens).unwrap();
        sequence.extend(tokens).unwrap();
        sequence
    }

    proptest! {
        #[test]
        fn pieces_make_the_same_identities(
            tokens in prop::collection::vec(0u32..4, 0..60),
            cuts in prop::collection::vec(0usize..60, 0..6),
            block_tokens in 1usize..9,
        ) {
            let whole = sequence(block_tokens, &tokens);
            let mut pieces = sequence(block_tokens, &[]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(tokens.len())).collect();
            cuts.push(tokens.len());
            cuts.sort_unstable();
            let mut start = 0;
            for cut in cuts {
                pieces.extend(&tokens[start..cut]).unwrap();
                start = cut;
            }
            prop_assert_eq!(whole.sequence_hashes(), pieces.sequence_hashes());
            prop_assert_eq!(whole.partial_tokens(), pieces.partial_tokens());
            let mut one_by_one = sequence(block_tokens, &[]);
            for token in &tokens {
                one_by_one.push(*token).unwrap();
            }
            prop_assert_eq!(whole.sequence_hashes(), one_by_one.sequence_hashes());
        }

        #[test]
        fn sequences_share_identities_as_far_as_they_share_tokens(
            one in prop::collection::vec(0u32..3, 0..40),
            other in prop::collection::vec(0u32..3, 0..40),
        ) {
            let shared = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
            let (one, other) = (sequence(4, &one), sequence(4, &other));
            let pairs = one.sequence_hashes().iter().zip(other.sequence_hashes());
            for (position, (a, b)) in pairs.enumerate() {
                prop_assert_eq!(a == b, (position + 1) * 4 <= shared);
                prop_assert_eq!(a.position() as usize, position);
            }
        }

        #[test]
        fn a_truncated_sequence_is_as_if_it_had_never_been_longer(
            tokens in prop::collection::vec(0u32..4, 0..40),
            len in 0usize..40,
            more in prop::collection::vec(0u32..4, 0..20),
        ) {
            let mut truncated = sequence(4, &tokens);
            truncated.truncate(len);
            truncated.extend(&more).unwrap();
            let mut fresh = sequence(4, &tokens[..len.min(tokens.len())]);
            fresh.extend(&more).unwrap();
            prop_assert_eq!(truncated.sequence_hashes(), fresh.sequence_hashes());
            prop_assert_eq!(truncated.tokens(), fresh.tokens());
        }
    }

    #[test]
    fn other_tokens_are_noticed() {
        let tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let salt = Salt::new("m");
        let found = sequence(4, &tokens).sequence_hashes().to_vec();
        assert!(verify_tokens(&salt, 4, &tokens, &found).is_ok());
        let mut others = tokens;
        others[6] = 0;
        let error = verify_tokens(&salt, 4, &others, &found).unwrap_err();
        assert!(matches!(error, Error::TokenMismatch { position: 1 }));
        let error = verify_tokens(&salt, 4, &tokens[..7], &found).unwrap_err();
        assert!(matches!(error, Error::TokenMismatch { position: 1 }));
        let tenant = Salt::new("m").with_tenant("t");
        let error = verify_tokens(&tenant, 4, &tokens, &found).unwrap_err();
        assert!(matches!(error, Error::TokenMismatch { position: 0 }));
    }

    #[test]
    fn a_block_knows_its_parent() {
        let sequence = sequence(2, &[1, 2, 3, 4, 5]);
        let blocks: Vec<_> = sequence.blocks_from(0).collect();
        assert_eq!(blocks[0].identity.parent, None);
        assert_eq!(
            blocks[1].identity.parent,
            Some(blocks[0].identity.sequence_hash)
        );
        assert_eq!(blocks[1].tokens, [3, 4]);
        assert_eq!(blocks.len(), 2);
    }

    #[test]
    fn blocks_of_no_tokens_are_refused() {
        let error = TokenSequence::new(Salt::new("m"), 0).unwrap_err();
        assert!(error.to_string().contains("block_tokens"));
    }
}
