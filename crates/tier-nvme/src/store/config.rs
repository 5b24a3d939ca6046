//! How a store is opened.

use std::fmt;
use std::sync::Arc;

use super::encoding::CompressionType;
use crate::NvmeError;
use crate::format::PAGE_BYTES;

/// Segment size of a new store in bytes where there is space.
const SEGMENT_BYTES_USUAL: u64 = 256 << 20;
/// Segment size below which none goes unasked.
const SEGMENT_BYTES_LEAST: u64 = 4 << 20;
/// Segments of which there must be space for so many.
const FREE_SHARE: u64 = 16;

/// Where a commit is; observers use it to see what a killed process was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CommitStage {
    /// No commit is under way.
    Idle,
    /// A segment is being made.
    Segment,
    /// Header and values are being written.
    Write,
    /// The segment is being synced.
    Sync,
    /// The index is being changed.
    Publish,
    /// A checkpoint is being written.
    Checkpoint,
}

type Observer = Arc<dyn Fn(CommitStage) + Send + Sync>;

/// How a store is opened.
///
/// ```
/// use tier_nvme::StorageConfig;
///
/// let short = StorageConfig::default().with_io_depth(64).with_direct_io(true);
/// let checked = StorageConfig::builder().io_depth(64).direct_io(true).build()?;
/// assert_eq!(short.io_depth(), checked.io_depth());
/// # Ok::<(), tier_nvme::NvmeError>(())
/// ```
#[derive(Clone)]
pub struct StorageConfig {
    io_depth: u32,
    direct_io: bool,
    compression: CompressionType,
    cache_size: u64,
    prefetch_distance: u32,
    segment_bytes: Option<u64>,
    create: bool,
    read_only: bool,
    memory_limit_bytes: u64,
    space_amplification_max: f64,
    compaction_bytes_per_second: Option<u64>,
    background: bool,
    observer: Option<Observer>,
}

impl Default for StorageConfig {
    /// 32 operations in flight, direct, segments of 256 MiB, made if absent, writable, at most 4 GiB of
    /// memory.
    fn default() -> Self {
        Self {
            io_depth: 32,
            direct_io: true,
            compression: CompressionType::None,
            cache_size: 0,
            prefetch_distance: 0,
            segment_bytes: None,
            create: true,
            read_only: false,
            memory_limit_bytes: 4 << 30,
            space_amplification_max: 2.0,
            compaction_bytes_per_second: Some(256 << 20),
            background: true,
            observer: None,
        }
    }
}

impl StorageConfig {
    /// Smallest segment in bytes.
    pub const SEGMENT_BYTES_MIN: u64 = crate::format::SEGMENT_BYTES_MIN;
    /// Largest segment in bytes.
    pub const SEGMENT_BYTES_MAX: u64 = crate::format::SEGMENT_BYTES_MAX;
    /// Least factor of space amplification that compaction can be asked to hold.
    pub const SPACE_AMPLIFICATION_MIN: f64 = 1.25;
    /// Most pages read ahead: 16 MiB.
    pub const PREFETCH_DISTANCE_MAX: u32 = 4096;
    /// Most operations in flight.
    pub const IO_DEPTH_MAX: u32 = 4096;

    /// Least memory in bytes: with less, not even a checkpoint could be written and read.
    pub const MEMORY_LIMIT_BYTES_MIN: u64 = 8 << 20;

    /// A builder, whose `build` checks everything.
    pub fn builder() -> StorageConfigBuilder {
        StorageConfigBuilder(Self::default())
    }

    /// Most operations in flight at once.
    #[must_use]
    pub fn with_io_depth(mut self, operations: u32) -> Self {
        self.io_depth = operations;
        self
    }

    /// Whether to read and write past the page cache where the file system can.
    #[must_use]
    pub fn with_direct_io(mut self, direct: bool) -> Self {
        self.direct_io = direct;
        self
    }

    /// How values are compressed from now on; those that are there stay as they are.
    #[must_use]
    pub fn with_compression(mut self, compression: CompressionType) -> Self {
        self.compression = compression;
        self
    }

    /// Bytes of values that were read and are kept for the next one who asks, at most; 0 for none.
    ///
    /// They count against the limit of memory, and go when a read finds none left.
    #[must_use]
    pub fn with_cache_size(mut self, bytes: u64) -> Self {
        self.cache_size = bytes;
        self
    }

    /// Pages of 4096 bytes that are read ahead for who reads values one by one in the order in which they
    /// were written; 0 for none. Values that are longer are read by several operations at once anyway.
    #[must_use]
    pub fn with_prefetch_distance(mut self, pages: u32) -> Self {
        self.prefetch_distance = pages;
        self
    }

    /// Size of a new store's segments in bytes; a multiple of 4096. A batch has to fit into one. If it is not
    /// set, they are of 256 MiB, or less where not 16 of those fit into the free space, down to 4 MiB.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = Some(bytes);
        self
    }

    /// Whether to make a store where there is none.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether to refuse writes.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Most memory in bytes for buffers, index, cache, batches under way, reading ahead, compaction, checkpoints and
    /// verification together; [`MemoryStats`](crate::MemoryStats) tells who has how much.
    ///
    /// A sixteenth (26 MiB at most) is set aside for compaction, an eighth (8 MiB) for checkpoints, and a quarter is for
    /// batches and scans alone. The index has half at most: a batch with new keys beyond that is refused,
    /// and a store that was opened with more is not opened with less than its keys take (about 250 bytes each).
    /// Writers wait while other batches have the memory; everybody else is refused
    /// with [`NvmeError::MemoryLimit`] when there is no more, and so is a batch that would have to wait
    /// for what readers hold. Read-ahead gets shorter, and the cache gives way. Values that a caller hands over count while
    /// their batch is under way, once more while they are compressed.
    ///
    /// Beside the limit there are threads, the queues of the engine, a few hundred bytes for each segment and for each key
    /// that a single call names, and the pages of maps, which are the system's to drop.
    #[must_use]
    pub fn with_memory_limit_bytes(mut self, bytes: u64) -> Self {
        self.memory_limit_bytes = bytes;
        self
    }

    /// Most bytes on the volume for each live byte, from 1.25 on; 2 if unset. Compaction begins well before,
    /// and at this limit writers wait for it. Four segments are not counted, nor is what compaction can't
    /// give back: segments that are mapped or damaged, and values too long to share a segment.
    #[must_use]
    pub fn with_space_amplification_max(mut self, factor: f64) -> Self {
        self.space_amplification_max = factor;
        self
    }

    /// Most bytes that compaction moves in a second in the background, or `None` for no limit; 256 MiB if
    /// unset. Where a writer waits for it, there is none.
    #[must_use]
    pub fn with_compaction_bytes_per_second(mut self, bytes: Option<u64>) -> Self {
        self.compaction_bytes_per_second = bytes;
        self
    }

    /// Whether the store may have threads of its own, which sleep when there is nothing to do: one for
    /// checkpoints and compaction, which writers do else, a step after each write, and two for batches
    /// that nobody waits for, which whoever waits or steps does else. On a simulated volume there is never a
    /// thread.
    #[must_use]
    pub fn with_background(mut self, background: bool) -> Self {
        self.background = background;
        self
    }

    /// Calls `observer` at each stage of each commit, on the committing thread.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(CommitStage) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Most operations in flight at once.
    pub fn io_depth(&self) -> u32 {
        self.io_depth
    }

    /// Whether the page cache is to be passed by.
    pub fn direct_io(&self) -> bool {
        self.direct_io
    }

    /// How values are compressed.
    pub fn compression(&self) -> CompressionType {
        self.compression
    }

    /// Bytes of values kept for the next read at most.
    pub fn cache_size(&self) -> u64 {
        self.cache_size
    }

    /// Pages of 4096 bytes that are read ahead.
    pub fn prefetch_distance(&self) -> u32 {
        self.prefetch_distance
    }

    /// Size of a new store's segments in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes.unwrap_or(SEGMENT_BYTES_USUAL)
    }

    /// Size of a new store's segments where so much space is free.
    pub(super) fn segment_bytes_with(&self, free_bytes: Option<u64>) -> u64 {
        if let (None, Some(free_bytes)) = (self.segment_bytes, free_bytes) {
            let share_bytes = (free_bytes / FREE_SHARE).max(SEGMENT_BYTES_LEAST);
            return SEGMENT_BYTES_USUAL.min(1 << share_bytes.ilog2());
        }
        self.segment_bytes()
    }

    /// Whether a store is made where there is none.
    pub fn create(&self) -> bool {
        self.create
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Most memory in bytes.
    pub fn memory_limit_bytes(&self) -> u64 {
        self.memory_limit_bytes
    }

    /// Most bytes on the volume for each live byte.
    pub fn space_amplification_max(&self) -> f64 {
        self.space_amplification_max
    }

    /// Most bytes that compaction moves in a second.
    pub fn compaction_bytes_per_second(&self) -> Option<u64> {
        self.compaction_bytes_per_second
    }

    /// Whether the store may have threads of its own.
    pub fn background(&self) -> bool {
        self.background
    }

    pub(super) fn observe(&self, stage: CommitStage) {
        if let Some(observer) = &self.observer {
            observer(stage);
        }
    }

    /// Checks every field.
    pub(super) fn check(&self) -> Result<(), NvmeError> {
        let invalid = |field, reason| Err(NvmeError::Invalid { field, reason });
        if self.prefetch_distance > Self::PREFETCH_DISTANCE_MAX {
            let (pages, max) = (self.prefetch_distance, Self::PREFETCH_DISTANCE_MAX);
            return invalid(
                "prefetch_distance",
                format!("{pages} pages are more than {max}"),
            );
        }
        // Batches have a quarter of the memory for themselves.
        let cache_size_max = self.memory_limit_bytes - self.memory_limit_bytes / 4;
        if self.cache_size > cache_size_max {
            let (bytes, max) = (self.cache_size, cache_size_max);
            return invalid(
                "cache_size",
                format!("{bytes} bytes are more than three quarters of the memory ({max})"),
            );
        }
        if self.io_depth == 0 || self.io_depth > Self::IO_DEPTH_MAX {
            let (depth, max) = (self.io_depth, Self::IO_DEPTH_MAX);
            return invalid("io_depth", format!("{depth} is not between 1 and {max}"));
        }
        let bytes = self.segment_bytes();
        if !(Self::SEGMENT_BYTES_MIN..=Self::SEGMENT_BYTES_MAX).contains(&bytes)
            || !bytes.is_multiple_of(PAGE_BYTES as u64)
        {
            let (min, max) = (Self::SEGMENT_BYTES_MIN, Self::SEGMENT_BYTES_MAX);
            return invalid(
                "segment_bytes",
                format!("{bytes} is not a multiple of {PAGE_BYTES} between {min} and {max}"),
            );
        }
        if self.memory_limit_bytes < Self::MEMORY_LIMIT_BYTES_MIN {
            let (bytes, min) = (self.memory_limit_bytes, Self::MEMORY_LIMIT_BYTES_MIN);
            return invalid(
                "memory_limit_bytes",
                format!("{bytes} bytes are less than {min}"),
            );
        }
        let factor = self.space_amplification_max;
        if !(Self::SPACE_AMPLIFICATION_MIN..=1e6).contains(&factor) {
            let min = Self::SPACE_AMPLIFICATION_MIN;
            return invalid(
                "space_amplification_max",
                format!("{factor} is not between {min} and 1000000"),
            );
        }
        if self.compaction_bytes_per_second == Some(0) {
            return invalid(
                "compaction_bytes_per_second",
                "0 would never end; leave the limit out for none".to_owned(),
            );
        }
        Ok(())
    }
}

impl fmt::Debug for StorageConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StorageConfig")
            .field("io_depth", &self.io_depth)
            .field("direct_io", &self.direct_io)
            .field("compression", &self.compression)
            .field("cache_size", &self.cache_size)
            .field("prefetch_distance", &self.prefetch_distance)
            .field("segment_bytes", &self.segment_bytes())
            .field("create", &self.create)
            .field("read_only", &self.read_only)
            .field("memory_limit_bytes", &self.memory_limit_bytes)
            .finish_non_exhaustive()
    }
}

/// Builds a [`StorageConfig`], checking it at the end.
#[derive(Debug, Clone)]
#[must_use]
pub struct StorageConfigBuilder(StorageConfig);

impl StorageConfigBuilder {
    /// See [`StorageConfig::with_io_depth`].
    pub fn io_depth(self, operations: u32) -> Self {
        Self(self.0.with_io_depth(operations))
    }

    /// See [`StorageConfig::with_direct_io`].
    pub fn direct_io(self, direct: bool) -> Self {
        Self(self.0.with_direct_io(direct))
    }

    /// See [`StorageConfig::with_compression`].
    pub fn compression(self, compression: CompressionType) -> Self {
        Self(self.0.with_compression(compression))
    }

    /// See [`StorageConfig::with_cache_size`].
    pub fn cache_size(self, bytes: u64) -> Self {
        Self(self.0.with_cache_size(bytes))
    }

    /// See [`StorageConfig::with_prefetch_distance`].
    pub fn prefetch_distance(self, pages: u32) -> Self {
        Self(self.0.with_prefetch_distance(pages))
    }

    /// See [`StorageConfig::with_segment_bytes`].
    pub fn segment_bytes(self, bytes: u64) -> Self {
        Self(self.0.with_segment_bytes(bytes))
    }

    /// See [`StorageConfig::with_create`].
    pub fn create(self, create: bool) -> Self {
        Self(self.0.with_create(create))
    }

    /// See [`StorageConfig::with_read_only`].
    pub fn read_only(self, read_only: bool) -> Self {
        Self(self.0.with_read_only(read_only))
    }

    /// See [`StorageConfig::with_memory_limit_bytes`].
    pub fn memory_limit_bytes(self, bytes: u64) -> Self {
        Self(self.0.with_memory_limit_bytes(bytes))
    }

    /// See [`StorageConfig::with_space_amplification_max`].
    pub fn space_amplification_max(self, factor: f64) -> Self {
        Self(self.0.with_space_amplification_max(factor))
    }

    /// See [`StorageConfig::with_compaction_bytes_per_second`].
    pub fn compaction_bytes_per_second(self, bytes: Option<u64>) -> Self {
        Self(self.0.with_compaction_bytes_per_second(bytes))
    }

    /// See [`StorageConfig::with_background`].
    pub fn background(self, background: bool) -> Self {
        Self(self.0.with_background(background))
    }

    /// The configuration.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] names the field that is out of range.
    pub fn build(self) -> Result<StorageConfig, NvmeError> {
        self.0.check()?;
        Ok(self.0)
    }
}
