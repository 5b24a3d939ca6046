//! The header of a tensor.

use core_view::DType;

use super::cursor::{Cursor, prelude, put_shape, put_short_text};
use super::{Body, RecordError};
use crate::identity::tensor_root;
use crate::tensor::len_bytes;
use crate::{CoralAlias, WeightHash};

const MAGIC: [u8; 4] = *b"SWOB";

/// A stored tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectRecord {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    pub(crate) alias: CoralAlias,
    pub(crate) body: Body,
}

impl ObjectRecord {
    pub(crate) fn root(&self) -> WeightHash {
        let leaves = self.body.leaves();
        tensor_root(self.dtype, &self.shape, self.body.len_bytes, &leaves)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = prelude(MAGIC);
        put_short_text(&mut bytes, self.dtype.safetensors_name());
        put_shape(&mut bytes, &self.shape);
        bytes.extend_from_slice(&self.alias.as_u64().to_le_bytes());
        self.body.encode(&mut bytes);
        bytes
    }

    /// Reads the header that stands under that hash and alias, and proves that it does.
    pub(crate) fn parse(
        bytes: &[u8],
        hash: &WeightHash,
        alias: CoralAlias,
    ) -> Result<Self, RecordError> {
        let mut cursor = Cursor::open(bytes, MAGIC)?;
        let dtype = cursor.dtype()?;
        let shape = cursor.shape()?;
        let own_alias = CoralAlias::from_u64(cursor.u64()?);
        let record = Self {
            dtype,
            shape,
            alias: own_alias,
            body: Body::parse(cursor)?,
        };
        if own_alias != alias {
            return Err(RecordError::Damaged(format!(
                "its alias is {own_alias}, its key says {alias}"
            )));
        }
        if len_bytes(dtype, &record.shape) != Some(record.body.len_bytes) {
            return Err(RecordError::Damaged(format!(
                "{dtype} {:?} does not have {} bytes",
                record.shape, record.body.len_bytes
            )));
        }
        let root = record.root();
        if root != *hash {
            return Err(RecordError::Damaged(format!(
                "its header has the hash {root}"
            )));
        }
        Ok(record)
    }
}
