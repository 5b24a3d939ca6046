//! Reading content: headers, chunks, whole bodies and ranges.

use std::ops::Range;

use core_view::{BufferMut, TensorStorage};

use super::core::{Core, described};
use crate::codec::chunk::DecodeError;
use crate::identity::{CHUNK_LEN_BYTES, leaf_digest};
use crate::record::{Body, ChunkEntry, DeltaRecord, Key, ObjectRecord, Place};
use crate::{ChunkEncoding, WeightError, WeightHash, parallel};

/// What the chunks being read belong to, for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) structure: &'static str,
    pub(super) hash: &'a WeightHash,
}

impl<'a> Owner<'a> {
    pub(super) fn tensor(hash: &'a WeightHash) -> Self {
        Self {
            structure: "tensor",
            hash,
        }
    }

    pub(super) fn delta(hash: &'a WeightHash) -> Self {
        Self {
            structure: "delta",
            hash,
        }
    }

    fn corrupt(self, index: usize, reason: impl std::fmt::Display) -> WeightError {
        WeightError::corrupt(
            self.structure,
            self.hash.to_string(),
            format!("chunk {index}: {reason}"),
        )
    }
}

impl Core {
    /// The header of a tensor; `None` if there is no such tensor.
    pub(super) fn object(&self, hash: &WeightHash) -> Result<Option<ObjectRecord>, WeightError> {
        match self.object_now(hash) {
            Err(WeightError::Corrupt { .. }) => {
                // While a deletion is committed, records go before the catalog knows of it.
                let _ledger = self.ledger();
                self.object_now(hash)
            }
            outcome => outcome,
        }
    }

    /// As [`Core::object`] for a caller that holds the commit lock; without it, a deletion that is under way
    /// looks like damage.
    pub(super) fn object_now(
        &self,
        hash: &WeightHash,
    ) -> Result<Option<ObjectRecord>, WeightError> {
        let Some(alias) = self.catalog().object(hash).map(|entry| entry.alias) else {
            return Ok(None);
        };
        let key = Key::Object(*hash, alias);
        let record = self.read(&key)?.ok_or_else(|| missing(&key))?;
        ObjectRecord::parse(&record, hash, alias)
            .map(Some)
            .map_err(|error| error.about("tensor", hash.to_string()))
    }

    /// Whether a tensor's header is not the one that was read before: it was deleted or stored anew.
    pub(super) fn moved(
        &self,
        hash: &WeightHash,
        record: &ObjectRecord,
    ) -> Result<bool, WeightError> {
        let _ledger = self.ledger();
        Ok(self.object_now(hash)?.as_ref() != Some(record))
    }

    /// The header of a delta; `None` if there is no such delta.
    pub(super) fn delta_record(&self, id: &WeightHash) -> Result<Option<DeltaRecord>, WeightError> {
        let Some(record) = self.read(&Key::Delta(*id))? else {
            return Ok(None);
        };
        DeltaRecord::parse(&record, id)
            .map(Some)
            .map_err(|error| error.about("delta", id.to_string()))
    }

    /// One chunk, decoded and compared with its leaf.
    pub(super) fn chunk(
        &self,
        owner: Owner<'_>,
        body: &Body,
        index: usize,
    ) -> Result<BufferMut, WeightError> {
        let entry = entry_of(owner, body, index)?;
        let encoded = self.encoded(owner, body, index, entry)?;
        let decoded = match entry.codec {
            ChunkEncoding::None => encoded,
            codec => {
                let mut target = self.buffers.take(body.chunk_len(index))?;
                decode_into(owner, index, codec, &encoded, &mut target)?;
                target
            }
        };
        check_leaf(owner, index, entry, &decoded)?;
        Ok(decoded)
    }

    /// As [`Core::chunk`], into memory of the caller.
    fn chunk_into(
        &self,
        owner: Owner<'_>,
        body: &Body,
        index: usize,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let entry = entry_of(owner, body, index)?;
        let encoded = self.encoded(owner, body, index, entry)?;
        decode_into(owner, index, entry.codec, &encoded, target)?;
        check_leaf(owner, index, entry, target)
    }

    fn encoded(
        &self,
        owner: Owner<'_>,
        body: &Body,
        index: usize,
        entry: &ChunkEntry,
    ) -> Result<BufferMut, WeightError> {
        let number = match &body.place {
            Place::Inline(encoded) => return Ok(BufferMut::from_vec(encoded.clone())),
            Place::Chunks(number) => *number,
        };
        let key = Key::Chunk(number, index as u32);
        let encoded = self
            .read(&key)
            .map_err(|error| match error {
                WeightError::Corrupt { reason, .. } => owner.corrupt(index, reason),
                other => other,
            })?
            .ok_or_else(|| owner.corrupt(index, "it is missing"))?;
        if encoded.len() != entry.encoded_len as usize {
            let reason = format!(
                "{} bytes are stored where its header says {}",
                encoded.len(),
                entry.encoded_len
            );
            return Err(owner.corrupt(index, reason));
        }
        Ok(encoded)
    }

    /// All content of a body, its chunks fetched in parallel into one buffer.
    pub(super) fn content(
        &self,
        owner: Owner<'_>,
        body: &Body,
    ) -> Result<TensorStorage, WeightError> {
        if body.len_bytes == 0 {
            return Ok(Vec::<u8>::new().into());
        }
        let no_memory = || WeightError::OutOfMemory {
            what: format!("{} {}", owner.structure, owner.hash),
            requested_bytes: body.len_bytes,
        };
        let len = usize::try_from(body.len_bytes).map_err(|_| no_memory())?;
        let whole = BufferMut::zeroed(len, 4096).map_err(|_| no_memory())?;
        let parts: Vec<(usize, BufferMut)> = whole
            .split_into(CHUNK_LEN_BYTES)
            .into_iter()
            .enumerate()
            .collect();
        let fetched = parallel::map(self.fetch_threads(), parts, |(index, mut part)| {
            self.chunk_into(owner, body, index, &mut part)
                .map(|()| part)
        });
        let mut fetched = fetched.into_iter();
        let Some(mut whole) = fetched.next().transpose()? else {
            return Ok(Vec::<u8>::new().into());
        };
        for part in fetched {
            whole.unsplit(part?).map_err(|_| no_memory())?;
        }
        Ok(whole.into())
    }

    /// The bytes of a body from `offset_bytes` on, into `target`; only the chunks that hold them are read.
    pub(super) fn range(
        &self,
        owner: Owner<'_>,
        body: &Body,
        offset_bytes: u64,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let len_bytes = target.len() as u64;
        let end = offset_bytes.checked_add(len_bytes);
        if end.is_none_or(|end| end > body.len_bytes) {
            return Err(WeightError::OutOfRange {
                name: format!("{} {}", owner.structure, owner.hash),
                offset_bytes,
                len_bytes,
                tensor_bytes: body.len_bytes,
            });
        }
        let mut pieces = Vec::new();
        let (mut at, mut rest) = (offset_bytes, target);
        while !rest.is_empty() {
            let index = (at / CHUNK_LEN_BYTES as u64) as usize;
            let start = (at % CHUNK_LEN_BYTES as u64) as usize;
            let len = rest.len().min(CHUNK_LEN_BYTES - start);
            let (piece, after) = rest.split_at_mut(len);
            pieces.push((index, start..start + len, piece));
            at += len as u64;
            rest = after;
        }
        parallel::map(self.fetch_threads(), pieces, |(index, within, piece)| {
            self.piece(owner, body, index, within, piece)
        })
        .into_iter()
        .collect()
    }

    fn piece(
        &self,
        owner: Owner<'_>,
        body: &Body,
        index: usize,
        within: Range<usize>,
        piece: &mut [u8],
    ) -> Result<(), WeightError> {
        let chunk = self.chunk(owner, body, index)?;
        let bytes = chunk
            .get(within)
            .ok_or_else(|| owner.corrupt(index, "it is shorter than its header says"))?;
        piece.copy_from_slice(bytes);
        Ok(())
    }
}

fn entry_of<'b>(
    owner: Owner<'_>,
    body: &'b Body,
    index: usize,
) -> Result<&'b ChunkEntry, WeightError> {
    let entry = body.chunks.get(index);
    entry.ok_or_else(|| owner.corrupt(index, "there is no such chunk"))
}

fn decode_into(
    owner: Owner<'_>,
    index: usize,
    codec: ChunkEncoding,
    encoded: &[u8],
    target: &mut [u8],
) -> Result<(), WeightError> {
    codec
        .decode_chunk(encoded, target)
        .map_err(|error| match error {
            DecodeError::Missing(error) => error,
            DecodeError::Newer(reason) | DecodeError::Damaged(reason) => {
                owner.corrupt(index, reason)
            }
        })
}

fn check_leaf(
    owner: Owner<'_>,
    index: usize,
    entry: &ChunkEntry,
    decoded: &[u8],
) -> Result<(), WeightError> {
    if leaf_digest(decoded) == entry.leaf {
        Ok(())
    } else {
        Err(owner.corrupt(index, "its bytes do not have the digest of its leaf"))
    }
}

fn missing(key: &Key) -> WeightError {
    let (structure, name) = described(key);
    WeightError::corrupt(structure, name, "its record is missing")
}
