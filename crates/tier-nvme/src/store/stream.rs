//! Reading a file from front to back, with the bytes that follow already on their way.

use std::collections::VecDeque;
use std::sync::Arc;

use core_view::BufferMut;
use core_view::contract::Transfer;

use super::NvmeError;
use super::log::aligned_buffer;
use super::scan::Windows;
use crate::VolumeFile;
use crate::format::PAGE_BYTES;

/// Bytes read at first, and wherever somebody looks at a new place: several small batches, or one header and the
/// start of its payload.
const WINDOW_BYTES: u64 = 64 << 10;
/// A place that is no further behind a window than this part of its length follows it.
const GAP_PART: u64 = 4;

/// Bytes of a file, mostly asked for in rising order.
///
/// What is read ahead fails only if somebody asks for it.
pub(super) struct Stream {
    file: Arc<dyn VolumeFile>,
    /// How much of it may be read.
    file_bytes: u64,
    windows: Windows,
    window_bytes_min: u64,
    window_at: u64,
    window: Option<BufferMut>,
    ahead: VecDeque<Ahead>,
    /// The window that was looked at before, to be filled again.
    spare: Option<BufferMut>,
    /// Bytes that lie in several windows.
    joined: Vec<u8>,
}

struct Ahead {
    at: u64,
    len_bytes: u64,
    transfer: Transfer<BufferMut>,
}

impl Ahead {
    fn end(&self) -> u64 {
        self.at + self.len_bytes
    }
}

impl Stream {
    /// The first `file_bytes` of a file. Where one place after the other is looked at, windows get longer, and more are read
    /// ahead, as far as `windows` allows.
    pub(super) fn new(file: Arc<dyn VolumeFile>, file_bytes: u64, windows: Windows) -> Self {
        Self {
            file,
            file_bytes: file_bytes - file_bytes % PAGE_BYTES as u64,
            windows,
            window_bytes_min: WINDOW_BYTES,
            window_at: 0,
            window: None,
            ahead: VecDeque::new(),
            spare: None,
            joined: Vec::new(),
        }
    }

    pub(super) fn file(&self) -> &Arc<dyn VolumeFile> {
        &self.file
    }

    /// From here on everything is read.
    pub(super) fn read_all(&mut self) {
        self.window_bytes_min = self.windows.bytes_max;
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self) {
        self.window = None;
        self.ahead = VecDeque::new();
        self.spare = None;
        self.joined = Vec::new();
    }

    /// `len` bytes at `offset`; `None` if the file ends before.
    pub(super) fn bytes_at(&mut self, offset: u64, len: u64) -> Result<Option<&[u8]>, NvmeError> {
        let Some(end) = offset
            .checked_add(len)
            .filter(|&end| end <= self.file_bytes)
        else {
            return Ok(None);
        };
        if !self.is_in_window(offset) {
            self.go_to(offset, len)?;
        }
        if end <= self.window_end() {
            return Ok(self.in_window(offset, end));
        }
        self.joined.clear();
        self.joined.reserve_exact(len as usize);
        let mut at = offset;
        loop {
            let upto = end.min(self.window_end());
            let from = (at - self.window_at) as usize;
            let part = self.window.as_deref().unwrap_or_default();
            let part = part.get(from..from + (upto - at) as usize);
            self.joined.extend_from_slice(part.unwrap_or_default());
            at = upto;
            if at == end {
                return Ok(Some(&self.joined));
            }
            self.go_to(at, end - at)?;
        }
    }

    fn in_window(&self, offset: u64, end: u64) -> Option<&[u8]> {
        let window = self.window.as_deref()?;
        window.get((offset - self.window_at) as usize..(end - self.window_at) as usize)
    }

    fn window_len(&self) -> u64 {
        self.window.as_ref().map_or(0, |window| window.len() as u64)
    }

    fn window_end(&self) -> u64 {
        self.window_at + self.window_len()
    }

    fn is_in_window(&self, offset: u64) -> bool {
        (self.window_at..self.window_end()).contains(&offset)
    }

    /// Makes the window one that `offset` is in; `len` bytes from there on are asked for.
    fn go_to(&mut self, offset: u64, len: u64) -> Result<(), NvmeError> {
        let window_len = self.window_len();
        let reach = self.window_end() + window_len / GAP_PART;
        let goes_on = window_len > 0 && (self.window_at..=reach).contains(&offset);
        let window_bytes = if goes_on {
            (2 * window_len).clamp(WINDOW_BYTES, self.windows.bytes_max)
        } else {
            WINDOW_BYTES.max(len.min(self.windows.bytes_max))
        };
        let window_bytes = window_bytes.max(self.window_bytes_min);
        if let Some(window) = self.window.take() {
            self.put_by(window);
        }
        while self
            .ahead
            .front()
            .is_some_and(|ahead| ahead.end() <= offset)
        {
            self.ahead.pop_front();
        }
        let is_coming = self.ahead.front().is_some_and(|ahead| ahead.at <= offset);
        let (at, window) = match self.ahead.pop_front().filter(|_| is_coming) {
            Some(ahead) => (ahead.at, ahead.transfer.wait()?),
            None => {
                self.ahead.clear();
                let at = offset - offset % PAGE_BYTES as u64;
                let target = self.memory(window_bytes.min(self.file_bytes - at))?;
                (at, self.file.read_blocking(at, target)?)
            }
        };
        (self.window_at, self.window) = (at, Some(window));
        if is_coming || window_bytes >= self.windows.bytes_max {
            self.read_ahead()?;
        }
        Ok(())
    }

    fn read_ahead(&mut self) -> Result<(), NvmeError> {
        while self.ahead.len() < self.windows.ahead {
            let at = self.ahead.back().map_or(self.window_end(), Ahead::end);
            let len_bytes = self
                .windows
                .bytes_max
                .min(self.file_bytes.saturating_sub(at));
            if len_bytes == 0 {
                break;
            }
            let target = self.memory(len_bytes)?;
            let transfer = self.file.read(at, target);
            self.ahead.push_back(Ahead {
                at,
                len_bytes,
                transfer,
            });
        }
        Ok(())
    }

    /// Fresh memory is slower than the device: it is used again.
    fn memory(&mut self, len_bytes: u64) -> Result<BufferMut, NvmeError> {
        let fits = |spare: &mut BufferMut| spare.len() as u64 == len_bytes;
        match self.spare.take_if(fits) {
            Some(spare) => Ok(spare),
            None => aligned_buffer(len_bytes as usize),
        }
    }

    fn put_by(&mut self, window: BufferMut) {
        if window.len() as u64 == self.windows.bytes_max {
            self.spare = Some(window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FileName, RealVolume, Volume, VolumeOptions};

    const FILE_BYTES: u64 = 9 << 20;

    fn stream(directory: &std::path::Path, windows: Windows) -> Stream {
        let volume = RealVolume::open(directory, VolumeOptions::default()).unwrap();
        let name = FileName::new("data").unwrap();
        let file = volume.create(&name, FILE_BYTES).unwrap();
        let mut bytes = aligned_buffer(FILE_BYTES as usize).unwrap();
        for (word, number) in bytes.chunks_exact_mut(8).zip(0_u64..) {
            word.copy_from_slice(&(number * 8).to_le_bytes());
        }
        file.write(0, bytes).wait().unwrap();
        Stream::new(file, FILE_BYTES, windows)
    }

    /// Whether these are the bytes of the file there.
    fn check(bytes: &[u8], offset: u64, len: u64) {
        assert_eq!(bytes.len() as u64, len);
        for (word, number) in bytes.chunks_exact(8).zip(0_u64..) {
            assert_eq!(word, (offset + number * 8).to_le_bytes());
        }
    }

    #[test]
    fn it_gives_the_bytes_of_the_file_wherever_they_are_asked_for() {
        for (bytes_max, ahead) in [(1 << 20, 4), (68 << 10, 1), (64 << 10, 0)] {
            check_stream(Windows { bytes_max, ahead });
        }
    }

    fn check_stream(windows: Windows) {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = stream(directory.path(), windows);
        for (step, len) in [
            (4096, 4096),
            (40_960, 8192),
            (264, 264),
            (1 << 18, 1 << 18),
            (1 << 20, 3 << 20),
        ] {
            let mut offset = 0;
            while offset + len <= FILE_BYTES {
                check(stream.bytes_at(offset, len).unwrap().unwrap(), offset, len);
                offset += step;
            }
        }
        for offset in [8 << 20, 4096, 5 << 20, (5 << 20) - 8, 0, FILE_BYTES - 800] {
            check(stream.bytes_at(offset, 800).unwrap().unwrap(), offset, 800);
        }
        stream.release();
        check(
            stream.bytes_at(0, FILE_BYTES).unwrap().unwrap(),
            0,
            FILE_BYTES,
        );
        assert!(stream.bytes_at(FILE_BYTES - 8, 16).unwrap().is_none());
        assert!(stream.bytes_at(u64::MAX, 16).unwrap().is_none());
    }
}
