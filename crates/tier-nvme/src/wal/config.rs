//! How a log is opened.

use crate::format::{GROUP_BYTES_MAX, PAGE_BYTES};
use crate::{FileName, NvmeError};

/// What an append does when the memory for records on their way is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overload {
    /// It waits until there is room.
    #[default]
    Wait,
    /// It fails as [`ErrorKind::Busy`](core_view::contract::ErrorKind::Busy), with nothing appended.
    Refuse,
}

/// How a [`Wal`](crate::Wal) is opened.
///
/// ```
/// use tier_nvme::WalConfig;
///
/// let config = WalConfig::new("EDGES-").with_file_bytes(16 << 20).with_spare_files(1);
/// assert_eq!(config.prefix(), "EDGES-");
/// ```
#[derive(Debug, Clone)]
pub struct WalConfig {
    prefix: String,
    file_bytes: u64,
    buffer_bytes: usize,
    spare_files: usize,
    prefill: bool,
    create: bool,
    read_only: bool,
    overload: Overload,
    manual: bool,
}

impl Default for WalConfig {
    /// As [`WalConfig::new`] with the prefix `WAL-`.
    fn default() -> Self {
        Self::new("WAL-")
    }
}

impl WalConfig {
    /// Smallest file in bytes.
    pub const FILE_BYTES_MIN: u64 = crate::format::WAL_FILE_BYTES_MIN;
    /// Largest file in bytes.
    pub const FILE_BYTES_MAX: u64 = crate::format::WAL_FILE_BYTES_MAX;
    /// Most characters of a prefix.
    pub const PREFIX_LEN_MAX: usize = 64;

    /// A log whose files are called `prefix` and 16 hex digits: of 32 MiB, with up to two spare ones,
    /// 16 MiB of records on their way, made if absent.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            file_bytes: 32 << 20,
            buffer_bytes: 16 << 20,
            spare_files: 2,
            prefill: true,
            create: true,
            read_only: false,
            overload: Overload::Wait,
            manual: false,
        }
    }

    /// Size of new files in bytes, a multiple of 4096; a record and a batch have to fit into one.
    #[must_use]
    pub fn with_file_bytes(mut self, bytes: u64) -> Self {
        self.file_bytes = bytes;
        self
    }

    /// Memory in bytes for records that are not durable yet; a single larger record or batch is let
    /// through when there is nothing else.
    #[must_use]
    pub fn with_buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// How many files may be kept for later when [`truncate_before`](crate::Wal::truncate_before) has no
    /// more use for them.
    #[must_use]
    pub fn with_spare_files(mut self, files: usize) -> Self {
        self.spare_files = files;
        self
    }

    /// Whether a new file is filled with zeros before it is used, so that no append writes to space that
    /// was only reserved. Files that are used again need no filling.
    #[must_use]
    pub fn with_prefill(mut self, prefill: bool) -> Self {
        self.prefill = prefill;
        self
    }

    /// Whether to make a log where there is none.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether to refuse appends, and change nothing on disk.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// What an append does when the memory is used up.
    #[must_use]
    pub fn with_overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }

    /// Whether nothing goes on unless [`Wal::step`](crate::Wal::step) is called, for simulations.
    #[cfg(feature = "sim")]
    #[must_use]
    pub fn with_manual_steps(mut self, manual: bool) -> Self {
        self.manual = manual;
        self
    }

    /// What the names of the files begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Size of new files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Memory in bytes for records on their way.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Files kept for later at most.
    pub fn spare_files(&self) -> usize {
        self.spare_files
    }

    /// Whether new files are filled with zeros.
    pub fn prefill(&self) -> bool {
        self.prefill
    }

    /// Whether a log is made where there is none.
    pub fn create(&self) -> bool {
        self.create
    }

    /// Whether appends are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// What an append does when the memory is used up.
    pub fn overload(&self) -> Overload {
        self.overload
    }

    pub(super) fn manual(&self) -> bool {
        self.manual
    }

    /// Most bytes of a group: what a file has between its header and the page that closing needs.
    pub(super) fn group_bytes_max(&self) -> usize {
        let file_bytes = usize::try_from(self.file_bytes).unwrap_or(usize::MAX);
        file_bytes
            .saturating_sub(2 * PAGE_BYTES)
            .min(GROUP_BYTES_MAX)
    }

    /// The name of the file of this number.
    pub(super) fn file_name(&self, number: u64) -> Result<FileName, NvmeError> {
        FileName::new(format!("{}{number:016x}", self.prefix))
    }

    /// The number in the name of a file of this log.
    pub(super) fn file_number(&self, name: &FileName) -> Option<u64> {
        let digits = name.as_str().strip_prefix(&self.prefix)?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 16 || !digits.bytes().all(lower_hex) {
            return None;
        }
        let number = u64::from_str_radix(digits, 16).ok()?;
        (1..=crate::format::COUNT_MAX)
            .contains(&number)
            .then_some(number)
    }

    /// Checks every field.
    pub(super) fn check(&self) -> Result<(), NvmeError> {
        let invalid = |field, reason| Err(NvmeError::Invalid { field, reason });
        let prefix = &self.prefix;
        if prefix.is_empty() || prefix.len() > Self::PREFIX_LEN_MAX {
            let max = Self::PREFIX_LEN_MAX;
            return invalid(
                "prefix",
                format!("{prefix:?} does not have 1 to {max} characters"),
            );
        }
        if prefix == crate::format::SEGMENT_NAME_PREFIX {
            return invalid("prefix", format!("{prefix:?} is the blob store's"));
        }
        self.file_name(1)?;
        let (min, max) = (Self::FILE_BYTES_MIN, Self::FILE_BYTES_MAX);
        if !(min..=max).contains(&self.file_bytes)
            || !self.file_bytes.is_multiple_of(PAGE_BYTES as u64)
        {
            let reason = format!(
                "{} is not a multiple of {PAGE_BYTES} between {min} and {max}",
                self.file_bytes
            );
            return invalid("file_bytes", reason);
        }
        Ok(())
    }
}
