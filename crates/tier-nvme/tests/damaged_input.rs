//! Changed bytes of each structure on disk, and of whole stores: an error or the truth, never a panic,
//! and never more memory than what is there could need.
//!
//! The fuzz targets feed the same, guided by what they reach; this runs everywhere.
#![expect(unsafe_code, reason = "an allocator that measures")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use tier_nvme::fuzzing::TARGETS;
use tier_nvme::sim::{Random, Seeds};

/// The largest thing there is to allocate for: the longest header of a batch, with what it is put
/// together from.
const ALLOCATION_BYTES_MAX: usize = 20 << 20;

struct Measured;

static LARGEST_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Measured {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST_BYTES.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST_BYTES.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST_BYTES.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Measured = Measured;

/// Changes some bytes, in the ways in which damage and malice do.
fn mutate(random: &mut Random, input: &mut Vec<u8>) {
    const TELLING: [u8; 6] = [0, 1, 127, 128, 254, 255];
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() as u64 + 1) as usize;
        match random.below(6) {
            0 => input.truncate(at.max(1)),
            1 => input.extend((0..random.below(40)).map(|_| random.next_u64() as u8)),
            2 => {
                let len = random.below(8) as usize + 1;
                let fill = TELLING[random.below(6) as usize];
                input
                    .iter_mut()
                    .skip(at)
                    .take(len)
                    .for_each(|byte| *byte = fill);
            }
            3 => {
                let word = random.next_u64() >> random.below(64);
                let bytes = word.to_le_bytes();
                input
                    .iter_mut()
                    .skip(at)
                    .zip(bytes)
                    .for_each(|(byte, new)| *byte = new);
            }
            4 => {
                let bit = 1 << random.below(8);
                input
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|byte| *byte ^= bit);
            }
            _ => {
                let copy: Vec<u8> = input.iter().copied().skip(at).take(16).collect();
                let to = random.below(input.len() as u64 + 1) as usize;
                input.splice(to..to, copy);
            }
        }
    }
}

#[test]
fn damaged_bytes_are_an_error_or_the_truth() {
    let inputs: Vec<_> = TARGETS
        .iter()
        .flat_map(|target| {
            (target.seeds)()
                .into_iter()
                .map(move |input| (target.run, input))
        })
        .collect();
    for (run, input) in &inputs {
        run(input);
    }
    let replay = "cargo test -p tier-nvme --features fuzzing --test damaged_input";
    Seeds::from_environment(100).for_each_on_all_cores(replay, |seed| {
        let mut random = Random::new(seed);
        for (run, input) in &inputs {
            for _ in 0..2 {
                let mut input = input.clone();
                mutate(&mut random, &mut input);
                run(&input);
            }
        }
    });
    let largest = LARGEST_BYTES.load(Ordering::Relaxed);
    assert!(largest <= ALLOCATION_BYTES_MAX, "{largest} bytes at once");
}
