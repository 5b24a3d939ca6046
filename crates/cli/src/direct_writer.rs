//! A new file that goes to the device while it is being made, past the page cache.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use core_view::BufferMut;
use rustix::fs::{FallocateFlags, OFlags, fallocate, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// Bytes of one operation. A file that is shorter is written at its end, and through the page cache.
const BLOCK_LEN: usize = 2 << 20;
/// Blocks in memory: as many are written as there are threads, one waits and one is being filled.
const BLOCKS: usize = 4;
const THREADS: usize = 2;
/// What devices and file systems want direct operations aligned to, at most.
const ALIGNMENT: usize = 4096;
/// Space that is taken at once, so that no write has to make the file longer.
const RESERVED_BYTES: u64 = 64 << 20;

/// Writes a file from its start. The last part reaches it with [`DirectWriter::finish`], which does not sync it.
///
/// The kernel copies what is written into memory of its own, finds that memory first, and writes it back later: for
/// gigabytes that nobody is about to read that costs more than decoding them, and all of the writing is left to the sync.
#[derive(Debug)]
pub(crate) struct DirectWriter {
    file: Arc<File>,
    block: Option<BufferMut>,
    filled: usize,
    /// Where in the file the block begins.
    start_bytes: u64,
    pump: Option<Pump>,
}

/// A block with its place and its length.
type Full = (u64, BufferMut, usize);

/// The threads that write, and what is between them and the one that fills blocks.
#[derive(Debug)]
struct Pump {
    full: Option<SyncSender<Full>>,
    free: Receiver<BufferMut>,
    made: usize,
    failed: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// What the threads have in common.
#[derive(Debug)]
struct Shared {
    file: Arc<File>,
    full: Mutex<Receiver<Full>>,
    /// Up to where space was taken.
    reserved_bytes: Mutex<u64>,
    failed: Arc<AtomicBool>,
}

impl DirectWriter {
    /// Writes to an empty file.
    pub(crate) fn new(file: File) -> Self {
        Self {
            file: Arc::new(file),
            block: None,
            filled: 0,
            start_bytes: 0,
            pump: None,
        }
    }

    /// Hands the block over, which has `len` bytes to be written.
    fn send(&mut self, len: usize) -> io::Result<()> {
        let Some(block) = self.block.take() else {
            return Ok(());
        };
        let pump = match &mut self.pump {
            Some(pump) => pump,
            slot => slot.insert(Pump::start(&self.file)?),
        };
        let full = (self.start_bytes, block, len);
        self.start_bytes += std::mem::take(&mut self.filled) as u64;
        let sent = pump.full.as_ref().is_some_and(|way| way.send(full).is_ok());
        match sent && !pump.failed.load(Ordering::Acquire) {
            true => Ok(()),
            false => pump.finish(),
        }
    }

    /// Writes what is left and gives the file its length.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        let len_bytes = self.start_bytes + self.filled as u64;
        if self.pump.is_none() {
            let block = self.block.take();
            let rest = block.as_ref().and_then(|block| block.get(..self.filled));
            return self.file.write_all_at(rest.unwrap_or_default(), 0);
        }
        let len = self.filled.next_multiple_of(ALIGNMENT);
        if let Some(padding) = self
            .block
            .as_mut()
            .and_then(|block| block.get_mut(self.filled..len))
        {
            padding.fill(0);
        }
        self.send(len)?;
        self.pump.as_mut().map_or(Ok(()), Pump::finish)?;
        self.file.set_len(len_bytes)
    }
}

impl Write for DirectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = match &mut self.block {
            Some(block) => block,
            slot => slot.insert(match &mut self.pump {
                Some(pump) => pump.block()?,
                None => new_block()?,
            }),
        };
        let mut room = block.get_mut(self.filled..).unwrap_or_default();
        let len = room.write(bytes)?;
        self.filled += len;
        if self.filled == BLOCK_LEN {
            self.send(BLOCK_LEN)?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pump {
    fn start(file: &Arc<File>) -> io::Result<Self> {
        // Where there is no such way the file goes through the page cache.
        let _ = set_direct(file, true);
        let (full, received) = sync_channel(BLOCKS - THREADS - 1);
        let (freed, free) = channel();
        let failed = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            file: Arc::clone(file),
            full: Mutex::new(received),
            reserved_bytes: Mutex::new(0),
            failed: Arc::clone(&failed),
        });
        let mut pump = Self {
            full: Some(full),
            free,
            made: 1,
            failed,
            threads: Vec::new(),
        };
        for index in 0..THREADS {
            let (shared, freed) = (Arc::clone(&shared), freed.clone());
            let thread = std::thread::Builder::new().name(format!("stepwell-write-{index}"));
            pump.threads.push(thread.spawn(move || shared.run(&freed))?);
        }
        Ok(pump)
    }

    /// Memory to be filled; waits for what is being written once there is enough of it.
    fn block(&mut self) -> io::Result<BufferMut> {
        if self.made < BLOCKS {
            self.made += 1;
            return new_block();
        }
        match self.free.recv() {
            Ok(block) => Ok(block),
            Err(_) => Err(self.finish().err().unwrap_or_else(ended)),
        }
    }

    /// Waits until all is written.
    fn finish(&mut self) -> io::Result<()> {
        self.full = None;
        let threads = std::mem::take(&mut self.threads).into_iter();
        // All of them end before anything is said.
        let outcomes: Vec<io::Result<()>> = threads
            .map(|thread| thread.join().unwrap_or_else(|_| Err(ended())))
            .collect();
        outcomes.into_iter().collect::<io::Result<()>>()?;
        match self.failed.load(Ordering::Acquire) {
            // It was told before.
            true => Err(ended()),
            false => Ok(()),
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // Nobody will use the file.
        let _ = self.finish();
    }
}

impl Shared {
    fn run(&self, freed: &Sender<BufferMut>) -> io::Result<()> {
        loop {
            let next = {
                let full = self.full.lock().unwrap_or_else(PoisonError::into_inner);
                full.recv()
            };
            let Ok((start_bytes, block, len)) = next else {
                return Ok(());
            };
            let written = self.write(start_bytes, block.get(..len).unwrap_or_default());
            if written.is_err() {
                self.failed.store(true, Ordering::Release);
            }
            // Given back even then: the other thread's writes are not to be waited for without end.
            let _ = freed.send(block);
            written?;
        }
    }

    fn write(&self, start_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.reserve(start_bytes + bytes.len() as u64);
        match self.file.write_all_at(bytes, start_bytes) {
            // The file system takes the flag and not the operation.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                set_direct(&self.file, false)?;
                self.file.write_all_at(bytes, start_bytes)
            }
            written => written,
        }
    }

    /// Takes space up to `end_bytes` and beyond. Where that fails the writes take it, or say why not.
    fn reserve(&self, end_bytes: u64) {
        let reserved = self.reserved_bytes.lock();
        let mut reserved = reserved.unwrap_or_else(PoisonError::into_inner);
        while *reserved < end_bytes {
            let empty = FallocateFlags::empty();
            *reserved = match fallocate(&*self.file, empty, *reserved, RESERVED_BYTES) {
                Ok(()) => *reserved + RESERVED_BYTES,
                Err(_) => u64::MAX,
            };
        }
    }
}

fn set_direct(file: &File, direct: bool) -> Result<(), Errno> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    fcntl_setfl(file, flags)
}

fn new_block() -> io::Result<BufferMut> {
    let refused = |_| io::Error::from(io::ErrorKind::OutOfMemory);
    BufferMut::zeroed(BLOCK_LEN, ALIGNMENT).map_err(refused)
}

fn ended() -> io::Error {
    io::Error::other("a thread that writes the file ended early")
}

#[cfg(test)]
mod tests;
