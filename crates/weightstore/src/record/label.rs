//! A use of a tensor.

use sha2::{Digest, Sha256};

use super::RecordError;
use super::cursor::{Cursor, prelude, put_text};
use crate::metadata::Label;

const MAGIC: [u8; 4] = *b"SWUS";

const HAS_LAYER_TYPE: u8 = 1;
const HAS_MODEL_NAME: u8 = 2;

/// Reads and writes [`Label`]s.
pub(crate) struct LabelRecord;

impl LabelRecord {
    pub(crate) fn encode(label: &Label) -> Vec<u8> {
        let mut bytes = prelude(MAGIC);
        put_text(&mut bytes, &label.name);
        put_text(&mut bytes, &label.compression_info);
        let mut flags = 0;
        if label.layer_type.is_some() {
            flags |= HAS_LAYER_TYPE;
        }
        if label.model_name.is_some() {
            flags |= HAS_MODEL_NAME;
        }
        bytes.push(flags);
        for text in [&label.layer_type, &label.model_name].into_iter().flatten() {
            put_text(&mut bytes, text);
        }
        bytes
    }

    /// What tells one use from another in the key.
    pub(crate) fn digest(encoded: &[u8]) -> [u8; 16] {
        let whole: [u8; 32] = Sha256::digest(encoded).into();
        let mut digest = [0; 16];
        digest.copy_from_slice(whole.split_at(16).0);
        digest
    }

    /// Reads the use whose key has that digest, and proves that it does.
    pub(crate) fn parse(bytes: &[u8], digest: &[u8; 16]) -> Result<Label, RecordError> {
        let mut cursor = Cursor::open(bytes, MAGIC)?;
        let name = cursor.text()?.to_owned();
        let compression_info = cursor.text()?.to_owned();
        let flags = cursor.u8()?;
        if flags & !(HAS_LAYER_TYPE | HAS_MODEL_NAME) != 0 {
            return Err(RecordError::Newer(format!("it has the fields {flags:#x}")));
        }
        let mut optional = |flag: u8| {
            (flags & flag != 0)
                .then(|| cursor.text().map(str::to_owned))
                .transpose()
        };
        let label = Label {
            name,
            compression_info,
            layer_type: optional(HAS_LAYER_TYPE)?,
            model_name: optional(HAS_MODEL_NAME)?,
        };
        cursor.end()?;
        if Self::digest(bytes) != *digest {
            // mutant: weights-no-use-check
            return Err(RecordError::damaged(
                "it does not have the digest of its key",
            ));
        }
        Ok(label)
    }
}
