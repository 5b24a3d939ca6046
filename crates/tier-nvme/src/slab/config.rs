//! How a slab is opened.

use crate::NvmeError;
use crate::format::PAGE_BYTES;
use crate::format::slab::SlotGeometry;

/// How a slab is opened.
///
/// ```
/// use tier_nvme::SlabConfig;
///
/// let config = SlabConfig::builder()
///     .block_bytes(1 << 20)
///     .capacity_bytes(8 << 30)
///     .build()?;
/// assert_eq!(config.block_bytes(), SlabConfig::default().block_bytes());
/// # Ok::<(), tier_nvme::NvmeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlabConfig {
    block_bytes: u64,
    capacity_bytes: u64,
    segment_bytes: u64,
    log_bytes: Option<u64>,
    io_depth: u32,
    direct_io: bool,
    durable: bool,
    create: bool,
    read_only: bool,
    queue_bytes: u64,
    own_thread: bool,
}

impl Default for SlabConfig {
    /// Blocks of 1 MiB, 1 GiB of them in segments of 256 MiB, 32 operations in flight, direct, durable, made
    /// if absent, writable, 256 MiB in the queue, pushed forward by a thread of its own.
    fn default() -> Self {
        Self {
            block_bytes: 1 << 20,
            capacity_bytes: 1 << 30,
            segment_bytes: 256 << 20,
            log_bytes: None,
            io_depth: 32,
            direct_io: true,
            durable: true,
            create: true,
            read_only: false,
            queue_bytes: 256 << 20,
            own_thread: true,
        }
    }
}

impl SlabConfig {
    /// Most operations in flight.
    pub const IO_DEPTH_MAX: u32 = 4096;

    /// A builder, whose `build` checks everything.
    pub fn builder() -> SlabConfigBuilder {
        SlabConfigBuilder(Self::default())
    }

    /// Longest payload of a block in bytes. A slot has this many, rounded up to 4096.
    #[must_use]
    pub fn with_block_bytes(mut self, bytes: u64) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// Bound of all segments' files together in bytes. What lies beside them (two tables of at most 169 bytes
    /// a slot and two pages) is made with the slab and does not grow.
    #[must_use]
    pub fn with_capacity_bytes(mut self, bytes: u64) -> Self {
        self.capacity_bytes = bytes;
        self
    }

    /// Size of a new slab's segments in bytes at most; they are made equal, so that they fill the capacity.
    #[must_use]
    pub fn with_segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Size of the log within each of a new slab's segments in bytes: whole pages from 32 KiB to 1 MiB. Unless
    /// it is set, a 256th of the segment.
    #[must_use]
    pub fn with_log_bytes(mut self, bytes: u64) -> Self {
        self.log_bytes = Some(bytes);
        self
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

    /// Whether what is acknowledged survives a power loss. Otherwise that is so once the slab was flushed or
    /// closed; a power loss before that takes the newest changes away, in reverse order, and a killed process
    /// loses nothing.
    #[must_use]
    pub fn with_durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Whether to make a slab where there is none.
    #[must_use]
    pub fn with_create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether to refuse changes.
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Bytes of payloads that may be under way, with copies of those that are not aligned; a put beyond them fails as busy,
    /// unless it is alone.
    #[must_use]
    pub fn with_queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// Whether a thread of the slab's own pushes changes forward; it sleeps while there are none. Without it,
    /// whoever waits for a change does, and nobody else: for simulations, in which a seed decides the order.
    #[must_use]
    pub fn with_own_thread(mut self, own_thread: bool) -> Self {
        self.own_thread = own_thread;
        self
    }

    /// Longest payload of a block in bytes.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// Bound of all segments' files together in bytes.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Most operations in flight at once.
    pub fn io_depth(&self) -> u32 {
        self.io_depth
    }

    /// Whether the page cache is left out.
    pub fn direct_io(&self) -> bool {
        self.direct_io
    }

    /// Whether what is acknowledged survives a power loss.
    pub fn durable(&self) -> bool {
        self.durable
    }

    /// Whether a slab is made where there is none.
    pub fn create(&self) -> bool {
        self.create
    }

    /// Whether changes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Bytes of payloads that may be under way.
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes
    }

    /// Whether a thread of the slab's own pushes changes forward.
    pub fn own_thread(&self) -> bool {
        self.own_thread
    }

    /// The sizes of a new slab: as few segments as the largest size allows, all equal.
    pub(super) fn geometry(&self) -> SlotGeometry {
        let page = PAGE_BYTES as u64;
        let count = self
            .capacity_bytes
            .div_ceil(self.segment_bytes.max(1))
            .max(1);
        let segment_bytes = self.capacity_bytes / count / page * page;
        let log_bytes = self.log_bytes.unwrap_or_else(|| {
            let share = (segment_bytes / 256).next_multiple_of(page);
            share.clamp(32 << 10, 1 << 20)
        });
        SlotGeometry {
            block_bytes: self.block_bytes,
            segment_bytes,
            log_bytes,
        }
    }

    pub(super) fn check(&self) -> Result<(), NvmeError> {
        let invalid = |field, reason: String| Err(NvmeError::Invalid { field, reason });
        if self.block_bytes == 0 || self.block_bytes > 1 << 30 {
            let reason = format!("{} is not from 1 to {}", self.block_bytes, 1 << 30);
            return invalid("block_bytes", reason);
        }
        if !(1..=Self::IO_DEPTH_MAX).contains(&self.io_depth) {
            let reason = format!("{} is not from 1 to {}", self.io_depth, Self::IO_DEPTH_MAX);
            return invalid("io_depth", reason);
        }
        if self.capacity_bytes > 1 << 50 {
            let reason = format!("{} is more than 1 PiB", self.capacity_bytes);
            return invalid("capacity_bytes", reason);
        }
        if let Err(reason) = self.geometry().check() {
            let reason = format!(
                "{reason}: blocks of {} bytes, segments of {} bytes in {}",
                self.block_bytes, self.segment_bytes, self.capacity_bytes
            );
            return invalid("segment_bytes", reason);
        }
        Ok(())
    }
}

/// Makes a [`SlabConfig`] whose fields are checked.
#[derive(Debug, Clone)]
pub struct SlabConfigBuilder(SlabConfig);

impl SlabConfigBuilder {
    /// Longest payload of a block in bytes.
    #[must_use]
    pub fn block_bytes(self, bytes: u64) -> Self {
        Self(self.0.with_block_bytes(bytes))
    }

    /// Bound of all segments' files together in bytes.
    #[must_use]
    pub fn capacity_bytes(self, bytes: u64) -> Self {
        Self(self.0.with_capacity_bytes(bytes))
    }

    /// Size of a new slab's segments in bytes at most.
    #[must_use]
    pub fn segment_bytes(self, bytes: u64) -> Self {
        Self(self.0.with_segment_bytes(bytes))
    }

    /// Most operations in flight at once.
    #[must_use]
    pub fn io_depth(self, operations: u32) -> Self {
        Self(self.0.with_io_depth(operations))
    }

    /// Whether to read and write past the page cache where the file system can.
    #[must_use]
    pub fn direct_io(self, direct: bool) -> Self {
        Self(self.0.with_direct_io(direct))
    }

    /// Whether what is acknowledged survives a power loss.
    #[must_use]
    pub fn durable(self, durable: bool) -> Self {
        Self(self.0.with_durable(durable))
    }

    /// Whether to make a slab where there is none.
    #[must_use]
    pub fn create(self, create: bool) -> Self {
        Self(self.0.with_create(create))
    }

    /// The configuration, if it can be.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] with the field at fault.
    pub fn build(self) -> Result<SlabConfig, NvmeError> {
        self.0.check()?;
        Ok(self.0)
    }
}
