//! Names of content: the SHA-256 root and Coral's alias.

use std::fmt;
use std::str::FromStr;

use crate::WeightError;

/// The SHA-256 root of a tensor or a delta; its text is 64 lower-case hex digits.
///
/// ```
/// use weightstore::WeightHash;
///
/// let text = "649f0b3b66f9463d52bd1e02ce06692f42d1f60f7940c4f9bf9757c91787646f";
/// let hash: WeightHash = text.parse()?;
/// assert_eq!(hash.to_string(), text);
/// # Ok::<(), weightstore::WeightError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightHash([u8; 32]);

impl WeightHash {
    /// The hash of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for WeightHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for WeightHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeightHash({self})")
    }
}

impl FromStr for WeightHash {
    type Err = WeightError;

    fn from_str(text: &str) -> Result<Self, WeightError> {
        parse_hex(text).map(Self)
    }
}

/// Coral's hash of a tensor, XXH3-64; its text is 16 lower-case hex digits.
///
/// It finds tensors, it does not vouch for them: 64 bits collide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoralAlias(u64);

impl CoralAlias {
    /// The alias of this number.
    pub const fn from_u64(digest: u64) -> Self {
        Self(digest)
    }

    /// The digest as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CoralAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for CoralAlias {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CoralAlias({self})")
    }
}

impl FromStr for CoralAlias {
    type Err = WeightError;

    fn from_str(text: &str) -> Result<Self, WeightError> {
        parse_hex(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

/// What a tensor can be looked up by.
///
/// ```
/// use weightstore::HashKey;
///
/// assert!(matches!("fe6fa8938608fe89".parse()?, HashKey::Coral(_)));
/// assert!("fe6f".parse::<HashKey>().is_err());
/// # Ok::<(), weightstore::WeightError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HashKey {
    /// The SHA-256 root.
    Sha256(WeightHash),
    /// Coral's alias.
    Coral(CoralAlias),
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hash) => hash.fmt(f),
            Self::Coral(alias) => alias.fmt(f),
        }
    }
}

impl FromStr for HashKey {
    type Err = WeightError;

    /// Takes 64 hex digits as a SHA-256 root and 16 as an alias.
    fn from_str(text: &str) -> Result<Self, WeightError> {
        if text.len() == 16 {
            text.parse().map(Self::Coral)
        } else {
            text.parse().map(Self::Sha256)
        }
    }
}

impl From<WeightHash> for HashKey {
    fn from(hash: WeightHash) -> Self {
        Self::Sha256(hash)
    }
}

impl From<&WeightHash> for HashKey {
    fn from(hash: &WeightHash) -> Self {
        Self::Sha256(*hash)
    }
}

impl From<CoralAlias> for HashKey {
    fn from(alias: CoralAlias) -> Self {
        Self::Coral(alias)
    }
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], WeightError> {
    let refused = || WeightError::InvalidHash {
        text: text.chars().take(80).collect(),
    };
    if text.len() != 2 * N {
        return Err(refused());
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = match digits {
            [high, low] => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low) as u8,
                _ => return Err(refused()),
            },
            _ => return Err(refused()),
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lead_back_to_hashes() {
        let hash = WeightHash::from_bytes(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(hash.to_string().parse::<HashKey>().unwrap(), hash.into());
        let alias = CoralAlias::from_u64(0x00ab);
        assert_eq!(alias.to_string(), "00000000000000ab");
        assert_eq!(alias.to_string().parse::<HashKey>().unwrap(), alias.into());
        let upper = hash.to_string().to_uppercase();
        assert_eq!(upper.parse::<WeightHash>().unwrap(), hash);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "xyz",
            "00000000000000g0",
            "ä0000000000000b",
            &"0".repeat(63),
        ] {
            assert!(text.parse::<HashKey>().is_err(), "{text}");
        }
    }
}
