//! The raw loop over a ring.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use core_view::BufferMut;
use io_uring::{IoUring, opcode, squeue, types::Fd};

use super::{Call, Touch, ended_early};

/// A ring for a known number of operations; the thread that made it uses it.
pub(super) struct RawRing {
    ring: IoUring,
}

impl std::fmt::Debug for RawRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawRing").finish_non_exhaustive()
    }
}

impl RawRing {
    pub(super) fn new(depth: usize) -> io::Result<Self> {
        let entries = u32::try_from(depth.next_power_of_two())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .build(entries)
            .or_else(|_| IoUring::new(entries))?;
        Ok(Self { ring })
    }

    /// Makes the call at each offset, with as many in flight as there are buffers.
    pub(super) fn run(
        &mut self,
        file: &File,
        call: Call,
        buffers: &mut Vec<BufferMut>,
        offsets: &[u64],
        touch: Touch<'_>,
    ) -> io::Result<()> {
        let mut run = Run {
            ring: &mut self.ring,
            fd: Fd(file.as_raw_fd()),
            call,
            places: vec![0; buffers.len()],
            free: (0..buffers.len()).collect(),
            buffers,
            in_flight: 0,
        };
        let mut ahead = offsets.iter().copied().enumerate();
        let mut outcome = Ok(());
        loop {
            while outcome.is_ok() && !run.free.is_empty() {
                let Some((place, offset)) = ahead.next() else {
                    break;
                };
                outcome = run.start(place, offset, touch);
            }
            if run.in_flight == 0 {
                return outcome;
            }
            // After a failure, what is in flight is waited for all the same.
            let reaped = run.reap(touch);
            outcome = outcome.and(reaped);
        }
    }
}

/// One pass over the offsets.
struct Run<'a> {
    ring: &'a mut IoUring,
    fd: Fd,
    call: Call,
    buffers: &'a mut Vec<BufferMut>,
    /// Which offset each buffer is used for.
    places: Vec<usize>,
    free: Vec<usize>,
    in_flight: usize,
}

impl Run<'_> {
    fn start(&mut self, place: usize, offset: u64, touch: Touch<'_>) -> io::Result<()> {
        let Some(number) = self.free.pop() else {
            return Ok(());
        };
        let Some(buffer) = self.buffers.get_mut(number) else {
            return Ok(());
        };
        if let Some(known) = self.places.get_mut(number) {
            *known = place;
        }
        let len = u32::try_from(buffer.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let entry = match self.call {
            Call::Write => {
                touch(place, buffer);
                let write = opcode::Write::new(self.fd, buffer.as_ptr(), len);
                write.offset(offset).build()
            }
            Call::Read => {
                let read = opcode::Read::new(self.fd, buffer.as_mut_ptr(), len);
                read.offset(offset).build()
            }
        };
        self.push(&entry.user_data(number as u64))?;
        self.in_flight += 1;
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        let mut queue = self.ring.submission();
        // SAFETY: the entry points into one of `buffers`, which is in use until `reap` has its completion;
        // `run` returns when none is in flight, and `Drop` leaks the buffers where it can't. The file is
        // borrowed by `run`.
        let pushed = unsafe { queue.push(entry) };
        // There is a place for each buffer.
        pushed.map_err(io::Error::other)
    }

    /// Submits what is new and waits for a completion.
    fn reap(&mut self, touch: Touch<'_>) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => {
                // Nobody knows what the kernel still has.
                self.leak();
                return Err(error);
            }
        }
        let mut outcome = Ok(());
        while let Some(completion) = self.ring.completion().next() {
            let number = completion.user_data() as usize;
            self.in_flight -= 1;
            self.free.push(number);
            let (Some(buffer), Some(&place)) =
                (self.buffers.get_mut(number), self.places.get(number))
            else {
                continue;
            };
            match usize::try_from(completion.result()) {
                Err(_) => outcome = Err(io::Error::from_raw_os_error(-completion.result())),
                Ok(moved) if moved != buffer.len() => outcome = Err(ended_early(self.call)),
                Ok(_) if self.call == Call::Read => touch(place, buffer),
                Ok(_) => {}
            }
        }
        outcome
    }

    fn leak(&mut self) {
        mem::forget(mem::take(self.buffers));
        self.in_flight = 0;
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            self.leak();
        }
    }
}
