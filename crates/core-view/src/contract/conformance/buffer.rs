//! What every [`BufferMut`] owes its holder.

use std::thread;

use super::pattern;
use super::verdict::broken;
use crate::BufferMut;

/// Runs the suite over buffers that `make` makes, at least of the length in bytes that it is given.
///
/// ```
/// use core_view::BufferMut;
/// use core_view::contract::conformance;
///
/// conformance::buffer(&mut |len| BufferMut::from_vec(vec![0; len]));
/// ```
///
/// # Panics
/// If the contract is broken.
pub fn buffer(make: &mut dyn FnMut(usize) -> BufferMut) {
    for len in [1, 64, 4096, 10_000] {
        keeps_its_bytes(make, len);
    }
    does_not_share(make);
    splits_and_joins(make);
    parts_live_alone(make);
}

fn check_len(buffer: &BufferMut, len: usize) {
    assert!(
        buffer.len() >= len,
        "a buffer of {} bytes where {len} were asked for",
        buffer.len()
    );
}

/// The bytes and the address stay the same over moves, to other threads too.
fn keeps_its_bytes(make: &mut dyn FnMut(usize) -> BufferMut, len: usize) {
    let mut buffer = make(len);
    check_len(&buffer, len);
    let (address, kind) = (buffer.as_ptr().addr(), buffer.storage_type());
    assert_eq!(buffer.as_mut_ptr().addr(), address, "two addresses");
    pattern::fill(1, &mut buffer);
    let moved = thread::spawn(move || {
        let found = buffer.to_vec();
        pattern::fill(2, &mut buffer);
        (found, buffer)
    });
    let (found, buffer) = moved.join().or_panic_on();
    assert!(
        found == pattern::bytes(1, found.len()),
        "other bytes on another thread"
    );
    assert!(
        buffer[..] == pattern::bytes(2, buffer.len()),
        "other bytes after a move"
    );
    assert_eq!(
        buffer.as_ptr().addr(),
        address,
        "the address changed by a move"
    );
    assert_eq!(buffer.storage_type(), kind, "the kind changed by a move");
    assert!(buffer.is_aligned_to(1), "not aligned to one byte");
}

/// A thread's result; its panic goes on here.
trait Joined<T> {
    fn or_panic_on(self) -> T;
}

impl<T> Joined<T> for thread::Result<T> {
    fn or_panic_on(self) -> T {
        self.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Buffers that live at the same time are disjoint.
fn does_not_share(make: &mut dyn FnMut(usize) -> BufferMut) {
    let mut buffers: Vec<_> = (0..3).map(|_| make(512)).collect();
    for (tag, buffer) in buffers.iter_mut().enumerate() {
        pattern::fill(tag as u64, buffer);
    }
    for (tag, buffer) in buffers.iter().enumerate() {
        assert!(
            buffer[..] == pattern::bytes(tag as u64, buffer.len()),
            "two buffers share memory"
        );
    }
}

/// Parts are disjoint, in order, and join only as they were.
fn splits_and_joins(make: &mut dyn FnMut(usize) -> BufferMut) {
    let mut whole = make(1000);
    let (address, len) = (whole.as_ptr().addr(), whole.len());
    pattern::fill(3, &mut whole);
    let mut left = whole.split_to(300);
    let middle = whole.split_to(300);
    let right = whole;
    assert_eq!(
        [left.len(), middle.len(), right.len()],
        [300, 300, len - 600],
        "lengths of parts"
    );
    assert_eq!(
        [
            left.as_ptr().addr(),
            middle.as_ptr().addr(),
            right.as_ptr().addr()
        ],
        [address, address + 300, address + 600],
        "addresses of parts"
    );
    let stranger = left.unsplit(make(8)).err();
    assert!(stranger.is_some(), "a stranger was joined");
    let joined = left.unsplit(right).err();
    let Some(right) = joined else {
        broken("a part was joined that was no neighbour")
    };
    let done = left.unsplit(middle).and_then(|()| left.unsplit(right));
    assert!(done.is_ok(), "neighbours were not joined");
    assert_eq!(
        (left.as_ptr().addr(), left.len()),
        (address, len),
        "the joined whole"
    );
    assert!(
        left[..] == pattern::bytes(3, len),
        "splitting changed bytes"
    );
    let end = left.split_off(len);
    assert!(
        end.is_empty() && end.iter().next().is_none(),
        "an empty part"
    );
    drop(left);
    assert_eq!(end.len(), 0, "an empty part outlives the rest");
}

/// Each part keeps the memory, on whichever thread it is dropped last.
fn parts_live_alone(make: &mut dyn FnMut(usize) -> BufferMut) {
    let parts = make(4096).split_into(512);
    let threads: Vec<_> = parts
        .into_iter()
        .enumerate()
        .map(|(tag, mut part)| {
            thread::spawn(move || {
                pattern::fill(tag as u64, &mut part);
                thread::yield_now();
                part[..] == pattern::bytes(tag as u64, part.len())
            })
        })
        .collect();
    for thread in threads {
        let whole = thread.join().or_panic_on();
        assert!(whole, "parts share memory");
    }
}
