//! Answers to the sanitizers, which would otherwise end the process at a size that can't be had.

use std::ffi::c_char;

static OPTIONS: [u8; 28] = *b"allocator_may_return_null=1\0";

/// Asked by AddressSanitizer.
#[unsafe(no_mangle)]
extern "C" fn __asan_default_options() -> *const c_char {
    OPTIONS.as_ptr().cast()
}

/// Asked by ThreadSanitizer, before it is able to run code that it instruments.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn __tsan_default_options() -> *const c_char {
    std::arch::naked_asm!("lea rax, [rip + {text}]", "ret", text = sym OPTIONS)
}
