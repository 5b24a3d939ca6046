//! The header of a delta.

use core_view::TensorStorage;

use super::cursor::{Cursor, prelude};
use super::{Body, RecordError};
use crate::identity::delta_root;
use crate::{ChunkEncoding, CoralAlias, Delta, DeltaKind, HashKey, WeightHash};

const MAGIC: [u8; 4] = *b"SWDL";

/// A stored delta: its fields, without the payload, and where the payload is.
#[derive(Debug, Clone)]
pub(crate) struct DeltaRecord {
    /// The delta with an empty payload.
    fields: Delta,
    pub(crate) body: Body,
}

impl DeltaRecord {
    pub(crate) fn new(delta: &Delta, body: Body) -> Self {
        Self {
            fields: delta.clone(),
            body,
        }
    }

    /// About what the record has beside its body.
    pub(crate) fn fields_bytes(&self) -> usize {
        self.fields.metadata().len() + 8 * self.fields.original_shape().len()
    }

    pub(crate) fn reference_hash(&self) -> HashKey {
        self.fields.reference_hash()
    }

    /// The delta with its payload.
    pub(crate) fn with_payload(self, payload: TensorStorage) -> Delta {
        self.fields.with_payload(payload)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = prelude(MAGIC);
        bytes.extend_from_slice(&self.fields.encode_fields());
        self.body.encode(&mut bytes);
        bytes
    }

    /// Reads the header that stands under that hash, and proves that it does.
    pub(crate) fn parse(bytes: &[u8], hash: &WeightHash) -> Result<Self, RecordError> {
        let mut cursor = Cursor::open(bytes, MAGIC)?;
        let kind = cursor.short_text()?;
        let Some(kind) = DeltaKind::from_name(kind) else {
            return Err(RecordError::Newer(format!("it has the kind {kind:?}")));
        };
        let dtype = cursor.dtype()?;
        let shape = cursor.shape()?;
        let reference: HashKey = match cursor.u8()? {
            1 => WeightHash::from_bytes(cursor.array()?).into(),
            2 => CoralAlias::from_u64(cursor.u64()?).into(),
            other => return Err(RecordError::Newer(format!("it has the reference {other}"))),
        };
        let ratio = f64::from_le_bytes(cursor.array()?);
        let metadata = cursor.text()?;
        let fields = Delta::new(kind, dtype, &shape, reference, Vec::<u8>::new())
            .with_compression_ratio(ratio)
            .with_metadata(metadata);
        let body = Body::parse(cursor)?;
        if body.has(ChunkEncoding::Difference) {
            return Err(RecordError::damaged("its payload can't have a base"));
        }
        let root = delta_root(&fields.encode_fields(), body.len_bytes, &body.leaves());
        if root != *hash {
            // mutant: weights-no-delta-check
            return Err(RecordError::Damaged(format!(
                "its header has the hash {root}"
            )));
        }
        Ok(Self { fields, body })
    }
}
