//! Makes a ring, or says why the kernel does not want one.

use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Most entries of a ring; more outstanding operations wait in the thread.
const ENTRIES_MAX: u32 = 4096;

/// A ring for `io_depth` operations, with the best flags that the kernel knows.
pub(super) fn ring(io_depth: u32) -> Result<IoUring, String> {
    // One more, for the read that wakes the thread.
    let entries = (io_depth + 1).next_power_of_two().min(ENTRIES_MAX);
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .build(entries)
        .or_else(|error| match error.raw_os_error() {
            // An older kernel that does not know the flags.
            Some(libc::EINVAL) => IoUring::new(entries),
            _ => Err(error),
        })
        .map_err(|error| refusal(&error))?;
    check_operations(&ring)?;
    Ok(ring)
}

/// A ring that goes from thread to thread.
pub(super) fn shared_ring(io_depth: u32) -> Result<IoUring, String> {
    let entries = io_depth.next_power_of_two().min(ENTRIES_MAX);
    IoUring::builder()
        .setup_coop_taskrun()
        .build(entries)
        .or_else(|error| match error.raw_os_error() {
            Some(libc::EINVAL) => IoUring::new(entries),
            _ => Err(error),
        })
        .map_err(|error| refusal(&error))
}

fn check_operations(ring: &IoUring) -> Result<(), String> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| format!("the kernel does not say what its io_uring can do: {error}"))?;
    let needed = [
        (opcode::Nop::CODE, "nop"),
        (opcode::Read::CODE, "read"),
        (opcode::Write::CODE, "write"),
        (opcode::Writev::CODE, "writev"),
        (opcode::Fsync::CODE, "fsync"),
    ];
    for (code, name) in needed {
        if !probe.is_supported(code) {
            return Err(format!("the kernel's io_uring has no {name}"));
        }
    }
    if !ring.params().is_feature_nodrop() || !ring.params().is_feature_ext_arg() {
        return Err("the kernel's io_uring is too old (before Linux 5.11)".to_owned());
    }
    Ok(())
}

fn refusal(error: &io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "forbidden by seccomp or by the sysctl kernel.io_uring_disabled"
        }
        Some(libc::ENOSYS) => "not in this kernel, or hidden by seccomp",
        Some(libc::ENOMEM) => "no memory for it, or RLIMIT_MEMLOCK (ulimit -l) is too low",
        Some(libc::EMFILE | libc::ENFILE) => "too many open files",
        _ => "unexpected",
    };
    format!("io_uring_setup failed: {error}: {why}")
}
