//! A model as the list of its files' headers and tensors.

use sha2::Digest;

use super::RecordError;
use super::cursor::{Cursor, prelude, put_text};
use crate::WeightHash;
use crate::identity::{finish, model_hasher};

const MAGIC: [u8; 4] = *b"SWMF";

/// A stored model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) content_hash: WeightHash,
    pub(crate) files: Vec<FileEntry>,
    /// The index of a sharded model, verbatim; empty for none.
    pub(crate) index: String,
    pub(crate) metadata: Vec<(String, String)>,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    /// Length of the whole file in bytes.
    pub(crate) len_bytes: u64,
    /// SHA-256 of the whole file, where it was asked for.
    pub(crate) sha256: Option<[u8; 32]>,
    /// The tensors in the order of their data.
    pub(crate) roots: Vec<WeightHash>,
    /// The header with its length in front and its padding, verbatim.
    pub(crate) header: Vec<u8>,
}

impl Manifest {
    /// The hash that binds every byte of the files.
    pub(crate) fn hash_files(files: &[FileEntry]) -> WeightHash {
        let mut hasher = model_hasher();
        hasher.update((files.len() as u32).to_le_bytes());
        for file in files {
            hasher.update(file.len_bytes.to_le_bytes());
            hasher.update((file.header.len() as u32).to_le_bytes());
            hasher.update(&file.header);
            hasher.update((file.roots.len() as u32).to_le_bytes());
            for root in &file.roots {
                hasher.update(root.as_bytes());
            }
        }
        finish(hasher)
    }

    pub(crate) fn roots(&self) -> impl Iterator<Item = &WeightHash> {
        self.files.iter().flat_map(|file| &file.roots)
    }

    /// Whether it says anything that an older one of the same content does not: file names, index or facts. What was
    /// computed of the older one's files, and was not of these, is taken over: they are the same bytes.
    #[cfg(feature = "native")]
    pub(crate) fn renews(&mut self, older: &Self) -> bool {
        debug_assert_eq!(self.content_hash, older.content_hash);
        for (file, older) in self.files.iter_mut().zip(&older.files) {
            file.sha256 = file.sha256.or(older.sha256);
        }
        self != older
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = prelude(MAGIC);
        bytes.extend_from_slice(self.content_hash.as_bytes());
        bytes.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        for file in &self.files {
            put_text(&mut bytes, &file.name);
            bytes.extend_from_slice(&file.len_bytes.to_le_bytes());
            bytes.push(u8::from(file.sha256.is_some()));
            bytes.extend_from_slice(file.sha256.as_ref().map_or(&[], |sum| &sum[..]));
            bytes.extend_from_slice(&(file.roots.len() as u32).to_le_bytes());
            for root in &file.roots {
                bytes.extend_from_slice(root.as_bytes());
            }
            bytes.extend_from_slice(&(file.header.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&file.header);
        }
        put_text(&mut bytes, &self.index);
        bytes.extend_from_slice(&(self.metadata.len() as u32).to_le_bytes());
        for (key, value) in &self.metadata {
            put_text(&mut bytes, key);
            put_text(&mut bytes, value);
        }
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut cursor = Cursor::open(bytes, MAGIC)?;
        let content_hash = WeightHash::from_bytes(cursor.array()?);
        let count = cursor.count(FileEntry::LEN_MIN)?;
        if count == 0 {
            return Err(RecordError::damaged("it has no files"));
        }
        let mut files: Vec<FileEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            files.push(FileEntry::parse(&mut cursor)?);
        }
        let index = cursor.text()?.to_owned();
        let pairs = cursor.count(8)?;
        let mut metadata = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            metadata.push((cursor.text()?.to_owned(), cursor.text()?.to_owned()));
        }
        cursor.end()?;
        let computed = Self::hash_files(&files);
        if computed != content_hash {
            // mutant: weights-no-manifest-check
            return Err(RecordError::Damaged(format!(
                "its files have the content hash {computed}, it says {content_hash}"
            )));
        }
        Ok(Self {
            content_hash,
            files,
            index,
            metadata,
        })
    }
}

impl FileEntry {
    /// Bytes of an entry whose variable parts are empty.
    const LEN_MIN: usize = 21;

    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, RecordError> {
        let name = cursor.text()?.to_owned();
        let len_bytes = cursor.u64()?;
        let sha256 = match cursor.u8()? {
            0 => None,
            1 => Some(cursor.array()?),
            flag => return Err(RecordError::Newer(format!("a file has the flag {flag}"))),
        };
        let count = cursor.count(32)?;
        let mut roots = Vec::with_capacity(count);
        for _ in 0..count {
            roots.push(WeightHash::from_bytes(cursor.array()?));
        }
        let header_len = cursor.count(1)?;
        let header = cursor.take(header_len)?.to_vec();
        Ok(Self {
            name,
            len_bytes,
            sha256,
            roots,
            header,
        })
    }
}
