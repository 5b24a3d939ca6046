//! A raw loop over a file: what reading and writing bytes must cost, with nothing around it.

#[cfg(feature = "io-uring")]
mod ring;
mod threads;
mod usage;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use core_view::BufferMut;
use rustix::fs::{FallocateFlags, OFlags};

#[cfg(feature = "io-uring")]
use ring::RawRing;
pub use usage::ProcessUsage;

/// Alignment of memory, offsets and lengths.
const PAGE_BYTES: usize = 4096;

/// What a raw loop does at each offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
}

/// Looks at, or changes, the buffer of an operation: before a write, after a read.
pub(super) type Touch<'a> = &'a (dyn Fn(usize, &mut [u8]) + Sync);

/// A file that is read and written past the page cache, in pieces of equal length, by one caller: no checksums, no
/// index, no log. It is the floor that a store is measured against, and no place for data.
///
/// ```
/// use tier_nvme::bench::RawFile;
///
/// let directory = tempfile::tempdir()?;
/// let mut file = RawFile::create(&directory.path().join("raw"), 1 << 20, 4096, 8)?;
/// file.write(&[0, 4096, 8192], &|place, page| page.fill(place as u8))?;
/// file.sync()?;
/// file.read(&[8192], &|_, page| assert!(page.iter().all(|&byte| byte == 2)))?;
/// println!("{}", file.mode());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct RawFile {
    file: File,
    is_direct: bool,
    len_bytes: u64,
    piece_bytes: usize,
    /// One for each operation in flight.
    buffers: Vec<BufferMut>,
    #[cfg(feature = "io-uring")]
    ring: Option<RawRing>,
}

impl RawFile {
    /// Makes a file of `len_bytes`, with its space reserved and nothing written, for pieces of
    /// `piece_bytes`, `depth` of them in flight. Where there is no io_uring, as many threads do it.
    ///
    /// # Errors
    /// The operating system's; `InvalidInput` if the length of a piece is no multiple of 4096.
    pub fn create(
        path: &Path,
        len_bytes: u64,
        piece_bytes: usize,
        depth: usize,
    ) -> io::Result<Self> {
        if piece_bytes == 0 || !piece_bytes.is_multiple_of(PAGE_BYTES) || depth == 0 {
            let reason = format!("{depth} pieces of {piece_bytes} bytes are no whole pages");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let (file, is_direct) = open(path)?;
        let mut raw = Self {
            file,
            is_direct,
            len_bytes,
            piece_bytes,
            buffers: buffers(piece_bytes, depth)?,
            #[cfg(feature = "io-uring")]
            ring: new_ring(depth),
        };
        raw.reserve()?;
        Ok(raw)
    }

    /// The same file with other operations in flight.
    ///
    /// # Errors
    /// `OutOfMemory`; `InvalidInput` for none.
    pub fn with_depth(mut self, depth: usize) -> io::Result<Self> {
        if depth == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        self.buffers = buffers(self.piece_bytes, depth)?;
        #[cfg(feature = "io-uring")]
        {
            self.ring = new_ring(depth);
        }
        Ok(self)
    }

    /// How the file is reached.
    pub fn mode(&self) -> &'static str {
        #[cfg(feature = "io-uring")]
        let has_ring = self.ring.is_some();
        #[cfg(not(feature = "io-uring"))]
        let has_ring = false;
        match (self.is_direct, has_ring, self.buffers.len()) {
            (true, _, 1) => "direct, one at a time",
            (true, true, _) => "direct, io_uring",
            (true, false, _) => "direct, threads",
            (false, _, _) => "buffered",
        }
    }

    /// Gives all space back and takes it again: what is written next is written for the first time.
    ///
    /// # Errors
    /// The operating system's.
    pub fn reserve(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, self.len_bytes) {
            // Not every file system can; the writes take it then.
            Err(rustix::io::Errno::OPNOTSUPP) => self.file.set_len(self.len_bytes)?,
            reserved => reserved?,
        }
        self.file.sync_all()
    }

    /// Writes a piece at each offset, after `fill` had its buffer, by place in `offsets`.
    ///
    /// # Errors
    /// The operating system's; `WriteZero` for a write that ended early.
    pub fn write(
        &mut self,
        offsets: &[u64],
        fill: &(dyn Fn(usize, &mut [u8]) + Sync),
    ) -> io::Result<()> {
        self.run(Call::Write, offsets, fill)
    }

    /// Reads a piece at each offset and shows it, by place in `offsets`.
    ///
    /// # Errors
    /// The operating system's; `UnexpectedEof` for a read that ended early.
    pub fn read(
        &mut self,
        offsets: &[u64],
        look: &(dyn Fn(usize, &mut [u8]) + Sync),
    ) -> io::Result<()> {
        self.run(Call::Read, offsets, look)
    }

    /// Syncs the data.
    ///
    /// # Errors
    /// The operating system's.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn run(&mut self, call: Call, offsets: &[u64], touch: Touch<'_>) -> io::Result<()> {
        #[cfg(feature = "io-uring")]
        if let Some(ring) = &mut self.ring {
            return ring.run(&self.file, call, &mut self.buffers, offsets, touch);
        }
        threads::run(&self.file, call, &mut self.buffers, offsets, touch)
    }

    /// Bytes of a piece.
    pub fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }
}

/// A ring, where several operations are in flight and the kernel allows it.
#[cfg(feature = "io-uring")]
fn new_ring(depth: usize) -> Option<RawRing> {
    (depth > 1).then(|| RawRing::new(depth).ok()).flatten()
}

fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let direct = OFlags::DIRECT.bits().cast_signed();
    match options.clone().custom_flags(direct).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Ok((options.open(path)?, false))
        }
        Err(error) => Err(error),
    }
}

/// Buffers of bytes that no device can shrink.
fn buffers(len_bytes: usize, count: usize) -> io::Result<Vec<BufferMut>> {
    let no_memory = |_| io::Error::from(io::ErrorKind::OutOfMemory);
    (0..count)
        .map(|seed| {
            let mut buffer = BufferMut::zeroed(len_bytes, PAGE_BYTES).map_err(no_memory)?;
            crate::bench::fill_noise(&mut buffer, seed as u64);
            Ok(buffer)
        })
        .collect()
}

/// A transfer that moved less than it should have.
#[cfg(feature = "io-uring")]
fn ended_early(call: Call) -> io::Error {
    io::Error::from(match call {
        Call::Read => io::ErrorKind::UnexpectedEof,
        Call::Write => io::ErrorKind::WriteZero,
    })
}
