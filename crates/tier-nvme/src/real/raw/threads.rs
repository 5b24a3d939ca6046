//! The raw loop with a thread for each operation in flight, or with none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use core_view::BufferMut;

use super::{Call, Touch};
use crate::threads;

/// Makes the call at each offset.
pub(super) fn run(
    file: &File,
    call: Call,
    buffers: &mut [BufferMut],
    offsets: &[u64],
    touch: Touch<'_>,
) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = |buffer: &mut BufferMut| -> io::Result<()> {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(&offset) = offsets.get(place) else {
                return Ok(());
            };
            match call {
                Call::Write => {
                    touch(place, buffer);
                    file.write_all_at(buffer, offset)?;
                }
                Call::Read => {
                    file.read_exact_at(buffer, offset)?;
                    touch(place, buffer);
                }
            }
        }
    };
    if let [buffer] = buffers {
        return work(buffer);
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| threads::start(scope, "stepwell-raw", || work(buffer)))
            .collect::<io::Result<_>>()?;
        threads.into_iter().try_for_each(|thread| {
            let panicked = |_| Err(io::Error::other("a thread of the raw loop panicked"));
            thread.join().unwrap_or_else(panicked)
        })
    })
}
