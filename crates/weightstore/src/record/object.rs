//! The header of a tensor.

use core_view::DType;

use super::cursor::{Cursor, prelude_with, put_shape, put_short_text};
use super::{Body, RecordError};
use crate::identity::tensor_root;
use crate::tensor::len_bytes;
use crate::{ChunkEncoding, CoralAlias, WeightHash};

const MAGIC: [u8; 4] = *b"SWOB";

const HAS_BASE: u16 = 1;

/// The most bases that a read may need, one below the other.
pub(crate) const DEPTH_MAX: u8 = 15;

/// What a tensor is stored against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BaseLink {
    pub(crate) hash: WeightHash,
    /// More than the base's own, which is 0 if it has none.
    pub(crate) depth: u8,
}

/// A stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectRecord {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    pub(crate) alias: CoralAlias,
    /// There if a chunk needs it.
    pub(crate) base: Option<BaseLink>,
    pub(crate) body: Body,
}

impl ObjectRecord {
    pub(crate) fn root(&self) -> WeightHash {
        let leaves = self.body.leaves();
        tensor_root(self.dtype, &self.shape, self.body.len_bytes, &leaves)
    }

    /// How many bases may be below it.
    pub(crate) fn depth(&self) -> u8 {
        self.base.map_or(0, |base| base.depth)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let features = if self.base.is_some() { HAS_BASE } else { 0 };
        let mut bytes = prelude_with(MAGIC, features);
        put_short_text(&mut bytes, self.dtype.safetensors_name());
        put_shape(&mut bytes, &self.shape);
        bytes.extend_from_slice(&self.alias.as_u64().to_le_bytes());
        if let Some(base) = &self.base {
            bytes.extend_from_slice(base.hash.as_bytes());
            bytes.extend_from_slice(&[base.depth, 0, 0, 0]);
        }
        self.body.encode(&mut bytes);
        bytes
    }

    /// Reads the header that stands under that hash and alias, and proves that it does.
    pub(crate) fn parse(
        bytes: &[u8],
        hash: &WeightHash,
        alias: CoralAlias,
    ) -> Result<Self, RecordError> {
        let record = Self::parse_any(bytes, hash)?;
        let own_alias = record.alias;
        if own_alias != alias {
            return Err(RecordError::Damaged(format!(
                "its alias is {own_alias}, its key says {alias}"
            )));
        }
        Ok(record)
    }

    /// Reads the header of the tensor of that hash, whatever its alias, and proves that it is.
    pub(crate) fn parse_any(bytes: &[u8], hash: &WeightHash) -> Result<Self, RecordError> {
        let (mut cursor, features) = Cursor::open_with(bytes, MAGIC, HAS_BASE)?;
        let dtype = cursor.dtype()?;
        let shape = cursor.shape()?;
        let alias = CoralAlias::from_u64(cursor.u64()?);
        let record = Self {
            dtype,
            shape,
            alias,
            base: match features & HAS_BASE {
                0 => None,
                _ => Some(parse_base(&mut cursor)?),
            },
            body: Body::parse(cursor)?,
        };
        if len_bytes(dtype, &record.shape) != Some(record.body.len_bytes) {
            return Err(RecordError::Damaged(format!(
                "{dtype} {:?} does not have {} bytes",
                record.shape, record.body.len_bytes
            )));
        }
        if record.base.is_some() != record.body.has(ChunkEncoding::Difference) {
            return Err(RecordError::damaged(
                "differences and a base go together, and one of them is missing",
            ));
        }
        let root = record.root();
        if root != *hash {
            // mutant: weights-no-identity-check
            return Err(RecordError::Damaged(format!(
                "its header has the hash {root}"
            )));
        }
        Ok(record)
    }
}

fn parse_base(cursor: &mut Cursor<'_>) -> Result<BaseLink, RecordError> {
    let hash = WeightHash::from_bytes(cursor.array()?);
    let depth = cursor.u8()?;
    cursor.zeros::<3>()?;
    if !(1..=DEPTH_MAX).contains(&depth) {
        return Err(RecordError::Damaged(format!("its depth is {depth}")));
    }
    Ok(BaseLink { hash, depth })
}
