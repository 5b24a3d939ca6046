//! The directory of a zip archive.

use std::io;

use rawzip::{CompressionMethod, ReaderAt, ZipArchive};

use crate::ByteSource;

/// The most that DEFLATE makes of a byte.
const EXPANSION_MAX: u64 = 1032;

/// How an entry is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
}

/// One file of an archive.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Offset in the archive of what is stored, in bytes.
    pub(super) start: u64,
    pub(super) stored_len: u64,
    /// Length of the content in bytes.
    pub(super) len_bytes: u64,
    pub(super) method: Method,
    /// CRC-32 of the content; a file that is no archive has none.
    pub(super) crc: Option<u32>,
}

/// The files of an archive.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: Vec<Entry>,
}

/// A source as the library reads it.
struct Reader<'a> {
    source: &'a dyn ByteSource,
    len_bytes: u64,
}

impl ReaderAt for Reader<'_> {
    fn read_at(&self, target: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.len_bytes.saturating_sub(offset);
        let len = target
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let target = target.get_mut(..len).unwrap_or_default();
        self.source.read_exact_at(offset, target)?;
        Ok(len)
    }
}

impl Directory {
    /// Reads the directory; memory is in proportion to its bytes. The error says what is wrong.
    pub(super) fn read(source: &dyn ByteSource) -> Result<Self, String> {
        let len_bytes = source.len_bytes().map_err(|error| error.to_string())?;
        let reader = Reader { source, len_bytes };
        let mut buffer = vec![0; rawzip::MAX_CENTRAL_DIRECTORY_RECORD_SIZE];
        let archive = ZipArchive::with_max_search_space(1 << 17)
            .locate_in_reader(reader, &mut buffer, len_bytes)
            .map_err(|(_, error)| damaged(&error))?;
        let mut entries = Vec::new();
        let mut found = 0;
        let mut records = archive.entries(&mut buffer);
        while let Some(record) = records.next_entry().map_err(|error| damaged(&error))? {
            found += 1;
            let name = std::str::from_utf8(record.file_path().as_bytes())
                .map_err(|_| "the name of one of its files is not UTF-8".to_owned())?;
            if record.is_dir() {
                continue;
            }
            let refused = |what: &str| format!("{name:?} {what}");
            let method = match record.compression_method() {
                CompressionMethod::STORE => Method::Stored,
                CompressionMethod::DEFLATE => Method::Deflated,
                _ => {
                    return Err(refused(
                        "is compressed by a method that is neither none nor DEFLATE",
                    ));
                }
            };
            if record.flags().is_encrypted() || record.flags().is_masked() {
                return Err(refused("is encrypted"));
            }
            let placed = archive
                .get_entry(record.wayfinder())
                .map_err(|error| refused(&format!("has a damaged header: {error}")))?;
            let (start, end) = placed.compressed_data_range();
            let entry = Entry {
                name: name.to_owned(),
                start,
                stored_len: end.saturating_sub(start),
                len_bytes: record.uncompressed_size_hint(),
                method,
                crc: Some(record.crc32()),
            };
            entry.check(len_bytes)?;
            entries.push(entry);
        }
        match found == archive.entries_hint() {
            true => Self::checked(entries),
            false => Err(format!(
                "its directory has {found} entries and claims {}",
                archive.entries_hint()
            )),
        }
    }

    fn checked(entries: Vec<Entry>) -> Result<Self, String> {
        let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(format!("two of its files are called {name:?}"));
        }
        Ok(Self { entries })
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

impl Entry {
    fn check(&self, archive_len: u64) -> Result<(), String> {
        let end = self.start.checked_add(self.stored_len);
        if end.is_none_or(|end| end > archive_len) {
            return Err(format!(
                "{:?} claims {} bytes at {} and the archive ends at {archive_len}; fetch it again",
                self.name, self.stored_len, self.start
            ));
        }
        let plausible = match self.method {
            Method::Stored => self.len_bytes == self.stored_len,
            Method::Deflated => self.len_bytes <= self.stored_len.saturating_mul(EXPANSION_MAX),
        };
        match plausible {
            true => Ok(()),
            false => Err(format!(
                "{:?} claims to make {} bytes of the {} that are stored",
                self.name, self.len_bytes, self.stored_len
            )),
        }
    }
}

fn damaged(error: &rawzip::Error) -> String {
    format!("its directory is damaged: {error}")
}
