//! Filters on the system calls of one thread.

use std::io;

/// A statement of the filter's language.
pub(crate) fn statement(code: u32, constant: u32) -> libc::sock_filter {
    jump(code, constant, 0, 0)
}

pub(crate) fn jump(code: u32, constant: u32, on_true: u8, on_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: on_true,
        jf: on_false,
        k: constant,
    }
}

/// Lets `call` fail with `code` on this thread and those it starts; with `argument`, only where that
/// argument has one of the bits.
pub(crate) fn refuse(
    call: libc::c_long,
    code: i32,
    argument: Option<(u32, u32)>,
) -> io::Result<()> {
    const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const ARGUMENTS_OFFSET: u32 = 16;
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let fail = statement(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ERRNO | code as u32,
    );
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let has_bits = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let mut filter = vec![statement(LOAD_WORD, 0)];
    match argument {
        None => filter.push(jump(equals, call as u32, 0, 1)),
        Some((index, bits)) => filter.extend([
            jump(equals, call as u32, 0, 3),
            statement(LOAD_WORD, ARGUMENTS_OFFSET + 8 * index),
            jump(has_bits, bits, 0, 1),
        ]),
    }
    filter.extend([fail, allow]);
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the call takes plain numbers and changes this thread's attribute only.
    let outcome = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `program` points to a filter of the given length that outlives the call.
    let outcome = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes this thread a nobody, who may not write where only root may.
pub(crate) fn drop_privileges() -> io::Result<()> {
    const NOBODY: libc::c_long = 65_534;
    // SAFETY: the call takes plain numbers; made directly, it changes this thread alone.
    let outcome = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
