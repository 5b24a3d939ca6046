//! Reading content: headers, chunks, whole bodies and ranges.

use std::ops::Range;

use core_view::{BufferMut, TensorStorage};

use super::core::{Core, described};
use super::tensor::{Source, Tensor};
use crate::codec::chunk::DecodeError;
use crate::identity::{CHUNK_LEN_BYTES, leaf_digest};
use crate::record::{ChunkEntry, DeltaRecord, Key, ObjectRecord, Place};
use crate::{ChunkEncoding, WeightError, WeightHash, parallel};

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
    pub(super) fn chunk(&self, source: Source<'_>, index: usize) -> Result<BufferMut, WeightError> {
        self.chunk_now(source, index)
            .or_else(|error| match self.after(source, error)? {
                Retry::As(tensor) => self.chunk(tensor.source(), index),
                Retry::No(error) => Err(self.blamed(source, index, error)),
            })
    }

    /// As [`Core::chunk`], into memory of the caller.
    fn chunk_into(
        &self,
        source: Source<'_>,
        index: usize,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let outcome = self.chunk_into_now(source, index, target);
        outcome.or_else(|error| match self.after(source, error)? {
            Retry::As(tensor) => self.chunk_into(tensor.source(), index, target),
            Retry::No(error) => Err(self.blamed(source, index, error)),
        })
    }

    fn chunk_now(&self, source: Source<'_>, index: usize) -> Result<BufferMut, WeightError> {
        let decoded = self.unchecked(source, index)?;
        let entry = entry_of(source, index)?;
        check_leaf(source, index, entry, &decoded)?; // mutant: weights-no-range-check
        Ok(decoded)
    }

    fn chunk_into_now(
        &self,
        source: Source<'_>,
        index: usize,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let entry = entry_of(source, index)?;
        let encoded = self.encoded(source, index, entry)?;
        self.decode(source, index, &encoded, target)?;
        check_leaf(source, index, entry, target)?; // mutant: weights-no-leaf-check
        Ok(())
    }

    /// Decodes a chunk that is not stored yet, and compares it with its leaf.
    pub(super) fn decode_and_check(
        &self,
        source: Source<'_>,
        index: usize,
        encoded: &[u8],
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        self.decode(source, index, encoded, target)?;
        check_leaf(source, index, entry_of(source, index)?, target)
    }

    /// One chunk, decoded and not compared with anything.
    fn unchecked(&self, source: Source<'_>, index: usize) -> Result<BufferMut, WeightError> {
        let entry = entry_of(source, index)?;
        let encoded = self.encoded(source, index, entry)?;
        if entry.codec == ChunkEncoding::None {
            return Ok(encoded);
        }
        let mut target = self.buffers.take(source.body.chunk_len(index))?;
        self.decode(source, index, &encoded, &mut target)?;
        Ok(target)
    }

    fn decode(
        &self,
        source: Source<'_>,
        index: usize,
        encoded: &[u8],
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let codec = entry_of(source, index)?.codec;
        // A base that ends before this chunk counts as zeros. Its own leaf is not looked at: the leaf of
        // what is decoded vouches for both.
        let base = match (codec, source.base) {
            (ChunkEncoding::Difference, Some(base)) if index < base.record.body.chunks.len() => {
                Some(self.unchecked(base.source(), index)?)
            }
            _ => None,
        };
        let base = base.as_ref().map_or(&[][..], |base| &base[..]);
        codec
            .decode_chunk(encoded, base, target)
            .map_err(|error| match error {
                DecodeError::Missing(error) => error,
                DecodeError::Newer(reason) | DecodeError::Damaged(reason) => {
                    source.corrupt(index, reason)
                }
            })
    }

    /// What to do after a chunk could not be read: it may have been stored otherwise meanwhile.
    fn after(&self, source: Source<'_>, error: WeightError) -> Result<Retry, WeightError> {
        if !matches!(error, WeightError::Corrupt { .. }) {
            return Ok(Retry::No(error));
        }
        let renewed = self.renewed(source);
        Ok(renewed.ok().flatten().map_or(Retry::No(error), Retry::As))
    }

    /// The error of a chunk, or that of the base that is at fault.
    fn blamed(&self, source: Source<'_>, index: usize, error: WeightError) -> WeightError {
        let mut bases = std::iter::successors(source.base, |tensor| tensor.base.as_ref());
        let damaged = bases.find_map(|base| {
            let there = index < base.record.body.chunks.len();
            let damage = there.then(|| self.chunk_now(base.source(), index).err())??;
            Some(damage.within(&format!("a base of tensor {}", source.hash)))
        });
        match (&error, damaged) {
            (WeightError::Corrupt { .. }, Some(damaged)) => damaged,
            _ => error,
        }
    }

    fn encoded(
        &self,
        source: Source<'_>,
        index: usize,
        entry: &ChunkEntry,
    ) -> Result<BufferMut, WeightError> {
        let number = match &source.body.place {
            Place::Inline(encoded) => return Ok(BufferMut::from_vec(encoded.clone())),
            Place::Chunks(number) => *number,
        };
        let key = Key::Chunk(number, index as u32);
        let encoded = self
            .read(&key)
            .map_err(|error| match error {
                WeightError::Corrupt { reason, .. } => source.corrupt(index, reason),
                other => other,
            })?
            .ok_or_else(|| source.corrupt(index, "it is missing"))?;
        if encoded.len() != entry.encoded_len as usize {
            let reason = format!(
                "{} bytes are stored where its header says {}",
                encoded.len(),
                entry.encoded_len
            );
            return Err(source.corrupt(index, reason));
        }
        Ok(encoded)
    }

    /// All content of a body, its chunks fetched in parallel into one buffer.
    pub(super) fn content(&self, source: Source<'_>) -> Result<TensorStorage, WeightError> {
        let body = source.body;
        if body.len_bytes == 0 {
            return Ok(Vec::<u8>::new().into());
        }
        let no_memory = || WeightError::OutOfMemory {
            what: format!("{} {}", source.structure, source.hash),
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
            self.chunk_into(source, index, &mut part).map(|()| part)
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
        source: Source<'_>,
        offset_bytes: u64,
        target: &mut [u8],
    ) -> Result<(), WeightError> {
        let len_bytes = target.len() as u64;
        let end = offset_bytes.checked_add(len_bytes);
        if end.is_none_or(|end| end > source.body.len_bytes) {
            return Err(WeightError::OutOfRange {
                name: format!("{} {}", source.structure, source.hash),
                offset_bytes,
                len_bytes,
                tensor_bytes: source.body.len_bytes,
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
            self.piece(source, index, within, piece)
        })
        .into_iter()
        .collect()
    }

    fn piece(
        &self,
        source: Source<'_>,
        index: usize,
        within: Range<usize>,
        piece: &mut [u8],
    ) -> Result<(), WeightError> {
        if piece.len() == source.body.chunk_len(index) {
            return self.chunk_into(source, index, piece);
        }
        let chunk = self.chunk(source, index)?;
        let bytes = chunk
            .get(within)
            .ok_or_else(|| source.corrupt(index, "it is shorter than its header says"))?;
        piece.copy_from_slice(bytes);
        Ok(())
    }
}

/// Whether a failed read is tried once more.
enum Retry {
    As(Tensor),
    No(WeightError),
}

fn entry_of<'a>(source: Source<'a>, index: usize) -> Result<&'a ChunkEntry, WeightError> {
    let entry = source.body.chunks.get(index);
    entry.ok_or_else(|| source.corrupt(index, "there is no such chunk"))
}

fn check_leaf(
    source: Source<'_>,
    index: usize,
    entry: &ChunkEntry,
    decoded: &[u8],
) -> Result<(), WeightError> {
    if leaf_digest(decoded) == entry.leaf {
        Ok(())
    } else {
        Err(source.corrupt(index, "its bytes do not have the digest of its leaf"))
    }
}

fn missing(key: &Key) -> WeightError {
    let (structure, name) = described(key);
    WeightError::corrupt(structure, name, "its record is missing")
}
