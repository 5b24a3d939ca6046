//! A thread that decides about the system calls of others, one by one.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crate::filter::{jump, statement};

/// What the kernel asks: an id, a process and flags, the call's number, an address, and six arguments.
type Notice = [u64; 10];

/// What it is answered: the id, a value, and an error with flags.
type Answer = [u64; 3];

const FIRST_ARGUMENT: usize = 4;
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const SET_MODE_FILTER: libc::c_long = 1;
const NEW_LISTENER: libc::c_long = 8;
const USER_NOTIF: u32 = 0x7fc0_0000;
const CONTINUE: u64 = 1 << 32;

/// How often the thread looks whether it is still wanted.
const POLL_MS: i32 = 20;

/// The arguments of a call.
pub(crate) struct Call([u64; 6]);

impl Call {
    /// The word at `index` of the memory that an argument points to.
    pub(crate) fn word_behind(&self, argument: usize, index: usize) -> u32 {
        let start = self.0[argument] as *const u32;
        let place = start.wrapping_add(index);
        // SAFETY: the caller is a thread of this process that waits in the call, and what it passed lives so long.
        unsafe { place.read_volatile() }
    }
}

/// Decides about calls until it is dropped.
pub(crate) struct Supervisor {
    stopping: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Lets each `call` of this thread, and of those it starts, fail with the code that `decide` returns, or go on.
    pub(crate) fn start(
        call: libc::c_long,
        decide: impl Fn(&Call) -> Option<i32> + Send + 'static,
    ) -> io::Result<Self> {
        let listener = listen(call)?;
        let stopping = Arc::new(AtomicBool::new(false));
        let refused = Arc::new(AtomicU64::new(0));
        let (stop, count) = (Arc::clone(&stopping), Arc::clone(&refused));
        let thread = thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                answer_one(&listener, &decide, &count);
            }
        });
        Ok(Self {
            stopping,
            refused,
            thread: Some(thread),
        })
    }

    /// Calls that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Acquire)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn listen(call: libc::c_long) -> io::Result<OwnedFd> {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let give = libc::BPF_RET | libc::BPF_K;
    let mut filter = [
        statement(load, 0),
        jump(equals, call as u32, 0, 1),
        statement(give, USER_NOTIF),
        statement(give, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the call takes plain numbers and changes this thread's attribute only.
    let outcome = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    let program = &raw const program;
    // SAFETY: `program` points to a filter of the given length that outlives the call.
    let listener =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, NEW_LISTENER, program) };
    if listener < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}

/// Waits a while for a call and answers it.
fn answer_one(listener: &OwnedFd, decide: &impl Fn(&Call) -> Option<i32>, refused: &AtomicU64) {
    let mut waiting = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: there is one entry, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut waiting, 1, POLL_MS) };
    if ready <= 0 || waiting.revents & libc::POLLIN == 0 {
        return;
    }
    let mut notice: Notice = [0; 10];
    // SAFETY: the kernel writes a notice, which is as long as this.
    let received = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut notice) };
    if received != 0 {
        return;
    }
    let mut arguments = [0; 6];
    arguments.copy_from_slice(&notice[FIRST_ARGUMENT..]);
    let verdict = match decide(&Call(arguments)) {
        Some(code) => {
            refused.fetch_add(1, Ordering::AcqRel);
            u64::from((-code) as u32)
        }
        None => CONTINUE,
    };
    let answer: Answer = [notice[0], 0, verdict];
    // SAFETY: the kernel reads an answer, which is as long as this.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const answer) };
}
