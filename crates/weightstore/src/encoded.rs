//! Tensors as they are stored, moved between stores without being decoded and encoded again.
//!
//! A store that is an [`EncodedSource`] gives the stored bytes of a tensor by range; one that is an
//! [`EncodedSink`] takes them chunk by chunk, verifies each against the tensor's own hash, and keeps what it took
//! until the tensor is published or discarded, over crashes too. A [`TransferJournal`] keeps what else
//! a transfer has to remember.
//!
//! `docs/formats/weights.md` has the layout of an encoded object.

use std::ops::Range;

use core_view::BufferMut;

use crate::identity::encoded_tag;
use crate::record::{BodyId, ObjectRecord, Place, RecordError};
use crate::{WeightError, WeightHash};

const MAGIC: [u8; 4] = *b"SWEO";
const VERSION: u16 = 1;
/// The number in the header of an encoded object, which stands for that of whichever store takes it.
const ANY_BODY: BodyId = BodyId(1);

/// A tensor as it is stored: a header, and the encoded chunks behind it.
///
/// ```
/// use weightstore::{EncodedObject, EncodedSource, NativeConfig, NativeStore, WeightStore, WeightTensor};
/// use core_view::DType;
///
/// let directory = tempfile::tempdir()?;
/// let store = NativeStore::open(directory.path(), NativeConfig::default())?;
/// let weight = WeightTensor::new("w", DType::U8, &[9], vec![7_u8; 9])?;
/// let hash = store.store(&weight, None)?;
///
/// let object = store.encoded(&hash)?.ok_or("absent")?;
/// let mut bytes = vec![0; object.len_bytes() as usize];
/// store.read_encoded(&object, 0, &mut bytes)?;
/// assert_eq!(EncodedObject::parse(&bytes)?, object);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedObject {
    hash: WeightHash,
    pub(crate) record: ObjectRecord,
    /// Everything in front of the chunks.
    head: Vec<u8>,
    tag: [u8; 32],
    /// Where each chunk ends in the encoded object.
    ends: Vec<u64>,
}

impl EncodedObject {
    /// Bytes at the start of an encoded object that tell the length of its head.
    pub const PREFIX_LEN_BYTES: usize = 48;
    /// The longest head in bytes: that of a tensor of two million chunks.
    pub const HEAD_LEN_MAX: u64 = 128 << 20;

    pub(crate) fn new(hash: WeightHash, mut record: ObjectRecord) -> Self {
        if let Place::Chunks(body) = &mut record.body.place {
            *body = ANY_BODY;
        }
        let header = record.encode();
        let mut head = Vec::with_capacity(Self::PREFIX_LEN_BYTES + header.len());
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&[0; 2]);
        head.extend_from_slice(&(header.len() as u32).to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(hash.as_bytes());
        head.extend_from_slice(&header);
        Self::of_parts(hash, record, head)
    }

    fn of_parts(hash: WeightHash, record: ObjectRecord, head: Vec<u8>) -> Self {
        let mut at = head.len() as u64;
        let in_chunks = matches!(record.body.place, Place::Chunks(_));
        let chunks = record.body.chunks.iter().filter(|_| in_chunks);
        let ends = chunks.map(|chunk| {
            at += u64::from(chunk.encoded_len);
            at
        });
        Self {
            hash,
            ends: ends.collect(),
            tag: encoded_tag(&head),
            record,
            head,
        }
    }

    /// The length of the head of an object that begins like this.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`], [`WeightError::Newer`].
    pub fn head_len_bytes(prefix: &[u8; Self::PREFIX_LEN_BYTES]) -> Result<u64, WeightError> {
        let (magic, rest) = prefix.split_at(4);
        let (version, rest) = rest.split_at(2);
        let (features, rest) = rest.split_at(2);
        if magic != MAGIC {
            return Err(damaged("it does not start with its magic"));
        }
        if version != VERSION.to_le_bytes() || features != [0; 2] {
            return Err(WeightError::Newer {
                structure: "encoded object",
                name: String::new(),
                reason: format!("it has version {version:?} and features {features:?}"),
            });
        }
        let Some((len, [0, 0, 0, 0, ..])) = rest.split_first_chunk() else {
            return Err(damaged("reserved bytes are not zero"));
        };
        let len = Self::PREFIX_LEN_BYTES as u64 + u64::from(u32::from_le_bytes(*len));
        match len <= Self::HEAD_LEN_MAX {
            true => Ok(len),
            false => Err(damaged("its head is longer than any")),
        }
    }

    /// Reads the head at the start of an object's bytes; what follows is not looked at.
    ///
    /// The header proves itself: it has the hash that it says.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`], [`WeightError::Newer`].
    pub fn parse(start: &[u8]) -> Result<Self, WeightError> {
        let prefix = start
            .first_chunk()
            .ok_or_else(|| damaged("it ends early"))?;
        let len = Self::head_len_bytes(prefix)? as usize;
        let head = start.get(..len).ok_or_else(|| damaged("it ends early"))?;
        let (prefix, header) = head.split_at(Self::PREFIX_LEN_BYTES);
        let hash = prefix.last_chunk().copied().unwrap_or_default();
        let hash = WeightHash::from_bytes(hash);
        let about = |error: RecordError| error.about("encoded object", hash.to_string());
        let record = ObjectRecord::parse_any(header, &hash).map_err(about)?;
        if let Place::Chunks(body) = record.body.place
            && body != ANY_BODY
        {
            return Err(damaged("it names a body of the store that it is from"));
        }
        Ok(Self::of_parts(hash, record, head.to_vec()))
    }

    /// The tensor's hash.
    pub fn hash(&self) -> WeightHash {
        self.hash
    }

    /// The tensor that this one is stored as a difference from, and can't be read without.
    pub fn base(&self) -> Option<WeightHash> {
        self.record.base.map(|base| base.hash)
    }

    /// Tells encodings of one tensor apart: a store may come to store it otherwise.
    pub fn tag(&self) -> [u8; 32] {
        self.tag
    }

    /// The bytes in front of the chunks.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Length of the whole in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(self.head.len() as u64)
    }

    /// Length of the tensor's bytes.
    pub fn logical_bytes(&self) -> u64 {
        self.record.body.len_bytes
    }

    /// How many chunks follow the head; none for a small tensor, which is in the head.
    pub fn chunk_count(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Where a chunk lies in the whole, in bytes.
    pub fn chunk_range(&self, index: u32) -> Option<Range<u64>> {
        let end = *self.ends.get(index as usize)?;
        let before = (index as usize).checked_sub(1);
        let start = before.and_then(|before| self.ends.get(before).copied());
        Some(start.unwrap_or(self.head.len() as u64)..end)
    }

    /// The chunks that a range of the whole touches, by the part of the range that lies in each.
    pub(crate) fn chunks_in(&self, range: Range<u64>) -> impl Iterator<Item = (u32, Range<u64>)> {
        let first = self.ends.partition_point(|end| *end <= range.start) as u32;
        (first..self.chunk_count()).map_while(move |index| {
            let chunk = self.chunk_range(index)?;
            let part = range.start.max(chunk.start)..range.end.min(chunk.end);
            (part.start < part.end).then_some((index, part))
        })
    }
}

fn damaged(reason: &str) -> WeightError {
    WeightError::corrupt("encoded object", "", reason)
}

/// A model as it is stored: a list of its tensors, and what makes its files of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodedModel {
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The tensors that it needs, each once.
    pub tensors: Vec<WeightHash>,
}

/// A store whose tensors can be read as they are stored.
///
/// The suite in the `testing` module (feature `testing`) checks an implementation.
pub trait EncodedSource: Send + Sync {
    /// How a tensor is stored now, or `None` if there is none of that hash.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`].
    fn encoded(&self, hash: &WeightHash) -> Result<Option<EncodedObject>, WeightError>;

    /// Fills `target` with the stored bytes from `offset_bytes` on. They are those that were stored, as the storage's
    /// checksums tell; that they make the tensor is checked by whoever decodes them.
    ///
    /// # Errors
    /// [`WeightError::Moved`] if the tensor is stored otherwise now, or gone; [`WeightError::OutOfRange`];
    /// [`WeightError::Corrupt`].
    fn read_encoded(
        &self,
        object: &EncodedObject,
        offset_bytes: u64,
        target: &mut [u8],
    ) -> Result<(), WeightError>;

    /// A model's manifest, or `None`.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`].
    fn encoded_model(&self, name: &str) -> Result<Option<EncodedModel>, WeightError>;
}

/// A store that takes tensors as they are stored elsewhere.
///
/// A transfer of a tensor begins, or goes on after a crash, with [`stage`](EncodedSink::stage); what
/// [`stage_chunks`](EncodedSink::stage_chunks) took is durable when it returns. Nobody sees the tensor before
/// [`publish`](EncodedSink::publish), and what does not make its hash is never stored. Several may send the same tensor at
/// once: who publishes first does, for all.
pub trait EncodedSink: Send + Sync {
    /// Begins or resumes a transfer: the chunks that are missing, or `None` if the tensor is there already. Chunks that
    /// were staged of another encoding of the tensor are dropped.
    ///
    /// # Errors
    /// [`WeightError::BaseNotFound`] if the tensor's base has to come first.
    fn stage(&self, object: &EncodedObject) -> Result<Option<Vec<u32>>, WeightError>;

    /// Verifies chunks and keeps them, all or none.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`] for a chunk that does not decode to the tensor's own bytes;
    /// [`WeightError::NotStaged`] without a transfer of this encoding.
    fn stage_chunks(
        &self,
        object: &EncodedObject,
        chunks: Vec<(u32, BufferMut)>,
    ) -> Result<(), WeightError>;

    /// Makes a tensor visible whose chunks are all staged. It stays until the store is closed, and from
    /// [`publish_model`](EncodedSink::publish_model) on as long as a model needs it.
    ///
    /// # Errors
    /// [`WeightError::NotStaged`] if chunks are missing, or somebody discarded them meanwhile.
    fn publish(&self, object: &EncodedObject) -> Result<(), WeightError>;

    /// Drops what was staged of a tensor; `false` if there was nothing.
    ///
    /// # Errors
    /// As the storage.
    fn discard(&self, hash: &WeightHash) -> Result<bool, WeightError>;

    /// The tensors of which something is staged, sorted.
    ///
    /// # Errors
    /// As the storage.
    fn staged(&self) -> Result<Vec<WeightHash>, WeightError>;

    /// Stores a manifest under a name, atomically; the tensors have to be there. A model of the same content stays as
    /// it is unless `replace`; then its file names, index and facts become the manifest's.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`] for a manifest that is none, or whose tensors are missing or others than it says;
    /// [`WeightError::ModelExists`] unless `replace`; [`WeightError::InvalidName`].
    fn publish_model(&self, name: &str, manifest: &[u8], replace: bool) -> Result<(), WeightError>;
}

/// A durable memory of transfers under way: for each a name and a short state, whose meaning is the transfer's own.
pub trait TransferJournal: Send + Sync {
    /// Sets the state of a transfer; durable when this returns.
    ///
    /// # Errors
    /// [`WeightError::InvalidName`]; [`WeightError::TooLarge`] above
    /// [`TRANSFER_STATE_LEN_MAX`] bytes.
    fn record(&self, transfer: &str, state: &[u8]) -> Result<(), WeightError>;

    /// The state of a transfer, or `None`.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`].
    fn recorded(&self, transfer: &str) -> Result<Option<Vec<u8>>, WeightError>;

    /// Forgets a transfer; `false` if it was not known.
    ///
    /// # Errors
    /// As the storage.
    fn forget(&self, transfer: &str) -> Result<bool, WeightError>;

    /// The names of all transfers, sorted.
    ///
    /// # Errors
    /// As the storage.
    fn transfers(&self) -> Result<Vec<String>, WeightError>;
}

/// The longest state of a transfer in bytes.
pub const TRANSFER_STATE_LEN_MAX: usize = 1 << 20;
