//! Keys as the index holds them.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// Longest key in bytes that needs no memory of its own: what makes a key as long as four words.
const INLINE_BYTES_MAX: usize = 30;

/// A key; a short one lies in the index itself.
#[derive(Debug, Clone)]
pub(super) enum Key {
    Short {
        len_bytes: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    Long(Box<[u8]>),
}

impl Key {
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { len_bytes, bytes } => {
                bytes.get(..usize::from(*len_bytes)).unwrap_or_default()
            }
            Self::Long(bytes) => bytes,
        }
    }

    fn short(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        Some(Self::Short {
            len_bytes: key.len() as u8,
            bytes,
        })
    }
}

impl From<&[u8]> for Key {
    fn from(key: &[u8]) -> Self {
        Self::short(key).unwrap_or_else(|| Self::Long(key.into()))
    }
}

impl From<Box<[u8]>> for Key {
    fn from(key: Box<[u8]>) -> Self {
        Self::short(&key).unwrap_or(Self::Long(key))
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_bytes_whatever_its_length() {
        let state = foldhash::quality::RandomState::default();
        let hash = |key: &Key| std::hash::BuildHasher::hash_one(&state, key);
        for len in 0..=70 {
            let bytes: Vec<u8> = (1..=len).collect();
            let (lent, given) = (
                Key::from(bytes.as_slice()),
                Key::from(bytes.clone().into_boxed_slice()),
            );
            assert_eq!(lent.as_slice(), bytes);
            assert_eq!((&lent, hash(&lent)), (&given, hash(&given)));
            assert_eq!(
                hash(&lent),
                std::hash::BuildHasher::hash_one(&state, bytes.as_slice())
            );
            let mut longer = bytes.clone();
            longer.push(0);
            assert_ne!(lent, Key::from(longer.as_slice()));
        }
        assert_eq!(size_of::<Key>(), 32);
    }
}
