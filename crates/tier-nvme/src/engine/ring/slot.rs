//! An operation that has a place in a ring.

use std::io;
use std::mem;
use std::os::fd::AsRawFd;

use core_view::contract::ContractError;
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use crate::engine::attempt::Disturbance;
use crate::engine::operation::{Attempt, Next};
use crate::engine::{Counters, Operation};

/// Owns everything that the kernel uses for one operation: buffers, file, vector of buffers.
pub(super) struct Slot {
    pub(super) operation: Operation,
    /// Whether the kernel may use what the slot owns.
    pub(super) in_kernel: bool,
    /// What the kernel reads of a vectored write; its heap memory stays put until the completion.
    vectors: Vec<libc::iovec>,
    /// The result that a test wants instead of the kernel's.
    substitute: Option<i32>,
}

impl Slot {
    pub(super) fn new(operation: Operation) -> Self {
        Self {
            operation,
            in_kernel: false,
            vectors: Vec::new(),
            substitute: None,
        }
    }

    /// The entry of the next call; it points into what the slot owns.
    pub(super) fn entry(&mut self) -> squeue::Entry {
        let limit_bytes = match self.operation.disturbance() {
            Disturbance::None => None,
            Disturbance::Limit(limit_bytes) => Some(limit_bytes),
            Disturbance::Error(code) => {
                self.substitute = Some(-code);
                return opcode::Nop::new().build();
            }
        };
        #[cfg(debug_assertions)]
        self.operation.touch();
        let file = Fd(self.operation.file().file.as_raw_fd());
        let offset_bytes = self.operation.position_bytes();
        // Lengths fit into 32 bits: an attempt has at most 1 GiB and 1024 buffers.
        match self.operation.attempt(limit_bytes) {
            Attempt::Read(target) => {
                opcode::Read::new(file, target.as_mut_ptr(), target.len() as u32)
                    .offset(offset_bytes)
                    .build()
            }
            Attempt::Write(source) => {
                opcode::Write::new(file, source.as_ptr(), source.len() as u32)
                    .offset(offset_bytes)
                    .build()
            }
            Attempt::WriteVectored(sources) => {
                self.vectors.clear();
                let vectors = sources.iter().map(|source| libc::iovec {
                    iov_base: source.as_ptr().cast_mut().cast(),
                    iov_len: source.len(),
                });
                self.vectors.extend(vectors);
                opcode::Writev::new(file, self.vectors.as_ptr(), self.vectors.len() as u32)
                    .offset(offset_bytes)
                    .build()
            }
            Attempt::Sync => opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// Takes in the kernel's result: bytes, or a code of the operating system below zero.
    pub(super) fn complete(&mut self, result: i32, counters: &Counters) -> Next {
        self.in_kernel = false;
        #[cfg(debug_assertions)]
        self.operation.touch();
        let result = self.substitute.take().unwrap_or(result);
        let outcome = usize::try_from(result)
            .map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
        self.operation.advance(outcome, counters)
    }

    /// Fails the operation and leaks what the kernel may still use.
    pub(super) fn abandon(self, error: ContractError, counters: &Counters) {
        mem::forget(self.vectors);
        self.operation.abandon(error, counters);
    }
}
