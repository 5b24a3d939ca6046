//! The keys of the blob store.

use crate::{CoralAlias, SketchPlace, WeightHash};

/// The number under which chunks are stored; never used twice, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct BodyId(pub(crate) u64);

/// What a key of the blob store names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Format,
    Bodies,
    Object(WeightHash, CoralAlias),
    Chunk(BodyId, u32),
    Hint([u8; 16], WeightHash),
    Label {
        hash: WeightHash,
        number: u64,
        digest: [u8; 16],
    },
    Delta(WeightHash),
    Model(String),
    Sketch(SketchPlace, WeightHash),
    BaseLink {
        base: WeightHash,
        hash: WeightHash,
    },
    /// A tensor that is being transferred.
    Staging(WeightHash),
    /// The state of a transfer.
    Journal(String),
}

impl Key {
    pub(crate) const OBJECTS: &'static [u8] = b"o/";
    pub(crate) const CHUNKS: &'static [u8] = b"c/";
    pub(crate) const HINTS: &'static [u8] = b"h/";
    pub(crate) const LABELS: &'static [u8] = b"u/";
    pub(crate) const DELTAS: &'static [u8] = b"d/";
    pub(crate) const MODELS: &'static [u8] = b"m/";
    pub(crate) const SKETCHES: &'static [u8] = b"k/";
    pub(crate) const BASE_LINKS: &'static [u8] = b"b/";
    pub(crate) const STAGING: &'static [u8] = b"t/";
    pub(crate) const JOURNAL: &'static [u8] = b"j/";

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Format => b"s/format".to_vec(),
            Self::Bodies => b"s/bodies".to_vec(),
            Self::Object(hash, alias) => [
                Self::OBJECTS,
                hash.as_bytes(),
                &alias.as_u64().to_be_bytes(),
            ]
            .concat(),
            Self::Chunk(body, index) => {
                [Self::CHUNKS, &body.0.to_be_bytes(), &index.to_be_bytes()].concat()
            }
            Self::Hint(hint, hash) => [Self::HINTS, hint, hash.as_bytes()].concat(),
            Self::Label {
                hash,
                number,
                digest,
            } => [Self::LABELS, hash.as_bytes(), &number.to_be_bytes(), digest].concat(),
            Self::Delta(id) => [Self::DELTAS, id.as_bytes()].concat(),
            Self::Model(name) => [Self::MODELS, name.as_bytes()].concat(),
            Self::Sketch(place, hash) => [
                Self::SKETCHES,
                &place.dtype,
                &place.row.to_be_bytes(),
                &[place.size_log2],
                &place.signs.to_be_bytes(),
                hash.as_bytes(),
            ]
            .concat(),
            Self::Staging(hash) => [Self::STAGING, hash.as_bytes()].concat(),
            Self::Journal(name) => [Self::JOURNAL, name.as_bytes()].concat(),
            Self::BaseLink { base, hash } => {
                [Self::BASE_LINKS, base.as_bytes(), hash.as_bytes()].concat()
            }
        }
    }

    /// The meaning of a key; `None` for one that no weight store writes.
    pub(crate) fn parse(key: &[u8]) -> Option<Self> {
        let (prefix, mut rest) = key.split_at_checked(2)?;
        let parsed = match prefix {
            b"s/" => return Self::parse_system(rest),
            Self::MODELS => {
                let name = String::from_utf8(rest.to_vec()).ok()?;
                return Some(Self::Model(name));
            }
            Self::JOURNAL => {
                let name = String::from_utf8(rest.to_vec()).ok()?;
                return Some(Self::Journal(name));
            }
            Self::STAGING => Self::Staging(hash(&mut rest)?),
            Self::OBJECTS => {
                let hash = hash(&mut rest)?;
                let alias = CoralAlias::from_u64(u64::from_be_bytes(array(&mut rest)?));
                Self::Object(hash, alias)
            }
            Self::CHUNKS => {
                let body = BodyId(u64::from_be_bytes(array(&mut rest)?));
                Self::Chunk(body, u32::from_be_bytes(array(&mut rest)?))
            }
            Self::HINTS => Self::Hint(array(&mut rest)?, hash(&mut rest)?),
            Self::LABELS => Self::Label {
                hash: hash(&mut rest)?,
                number: u64::from_be_bytes(array(&mut rest)?),
                digest: array(&mut rest)?,
            },
            Self::DELTAS => Self::Delta(hash(&mut rest)?),
            Self::SKETCHES => {
                let place = SketchPlace {
                    dtype: array(&mut rest)?,
                    row: u64::from_be_bytes(array(&mut rest)?),
                    size_log2: u8::from_be_bytes(array(&mut rest)?),
                    signs: u64::from_be_bytes(array(&mut rest)?),
                };
                Self::Sketch(place, hash(&mut rest)?)
            }
            Self::BASE_LINKS => Self::BaseLink {
                base: hash(&mut rest)?,
                hash: hash(&mut rest)?,
            },
            _ => return None,
        };
        rest.is_empty().then_some(parsed)
    }

    fn parse_system(rest: &[u8]) -> Option<Self> {
        match rest {
            b"format" => Some(Self::Format),
            b"bodies" => Some(Self::Bodies),
            _ => None,
        }
    }
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn hash(rest: &mut &[u8]) -> Option<WeightHash> {
    array(rest).map(WeightHash::from_bytes)
}
