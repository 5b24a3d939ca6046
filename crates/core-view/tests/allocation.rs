//! What allocates, and how much: counted by a global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use core_view::{DType, Tensor, TensorStorage};

/// Counts on each thread, so that tests beside each other do not disturb.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static CURRENT_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
    static LARGEST_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn note(allocated: usize, freed: usize) {
    let current = CURRENT_BYTES.get() + allocated as isize - freed as isize;
    CURRENT_BYTES.set(current);
    PEAK_BYTES.set(PEAK_BYTES.get().max(current));
    if allocated > 0 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        LARGEST_BYTES.set(LARGEST_BYTES.get().max(allocated));
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(new_size, layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Usage {
    allocations: usize,
    peak_bytes: isize,
    largest_bytes: usize,
}

fn usage_of(work: impl FnOnce()) -> Usage {
    let start = CURRENT_BYTES.get();
    ALLOCATIONS.set(0);
    LARGEST_BYTES.set(0);
    PEAK_BYTES.set(start);
    work();
    Usage {
        allocations: ALLOCATIONS.get(),
        peak_bytes: PEAK_BYTES.get() - start,
        largest_bytes: LARGEST_BYTES.get(),
    }
}

#[test]
fn the_counter_counts() {
    let usage = usage_of(|| drop(vec![0_u8; 1000]));
    assert_eq!((usage.allocations, usage.largest_bytes), (1, 1000));
    assert!(usage.peak_bytes >= 1000);
}

#[test]
fn no_view_operation_allocates() {
    let storage = TensorStorage::from_vec(vec![0_u8; 4096]);
    let tensor = Tensor::from_vec((0_u32..120).collect(), &[1, 2, 3, 4, 5]).unwrap();
    let usage = usage_of(|| {
        let view = storage.clone().view(1, 4000).unwrap().view(7, 100).unwrap();
        assert_eq!(view.as_slice_of::<u8>().unwrap().len(), 100);
        let mut view = tensor.clone();
        view = view.squeeze(0).unwrap().unsqueeze(2).unwrap();
        view = view.narrow(1, 1, 2).unwrap().slice(4, 1.., 2).unwrap();
        view = view.flip(0).unwrap().select(0, 1).unwrap();
        view = view
            .transpose(0, 3)
            .unwrap()
            .permute(&[3, 2, 1, 0])
            .unwrap();
        view = view.broadcast_to(&[7, 2, 4, 6, 2]).unwrap();
        let flat = tensor.reshape(&[4, 30]).unwrap().flatten().unwrap();
        assert!(flat.contiguous().unwrap().is_contiguous() && !flat.is_unique());
        assert_eq!(flat.as_slice::<u32>().unwrap().len(), 120);
        assert_eq!(flat.get::<u32>(&[119]).unwrap(), 119);
        assert!(flat.to("cpu".parse().unwrap()).unwrap().data_ptr() == tensor.data_ptr());
        assert!(view.rank() > 0 && view.data_ptr().addr() > 0);
        let moved = storage.clone();
        drop(moved.try_into_unique().unwrap_err());
    });
    assert_eq!(usage.allocations, 0);
}

#[test]
fn writing_in_place_does_not_allocate() {
    let mut tensor = Tensor::zeros(DType::F32, &[8, 8]).unwrap();
    let source = Tensor::from_vec(vec![1.0_f32; 8], &[1, 8]).unwrap();
    let source = source.broadcast_to(&[8, 8]).unwrap();
    let usage = usage_of(|| {
        tensor.copy_(&source).unwrap();
        tensor.set(&[3, 3], 2.0_f32).unwrap();
        tensor.as_mut_slice::<f32>().unwrap()[0] = 3.0;
        tensor.make_unique().unwrap();
    });
    assert_eq!(usage.allocations, 0);
}

#[test]
#[cfg(feature = "safetensors")]
fn a_header_costs_memory_in_proportion_to_its_text_whatever_it_claims() {
    use core_view::safetensors::Header;

    let claims_a_lot = [&99_999_999_u64.to_le_bytes()[..], b"{}"].concat();
    let usage = usage_of(|| {
        assert!(Header::read(&mut &claims_a_lot[..], claims_a_lot.len() as u64).is_err());
    });
    assert!(
        usage.largest_bytes <= claims_a_lot.len(),
        "{}",
        usage.largest_bytes
    );

    // The densest text: a dimension of two characters is a number of eight bytes.
    let ones = vec!["1"; 200_000].join(",");
    let dense = format!(r#"{{"t":{{"dtype":"U8","shape":[{ones}],"data_offsets":[0,1]}}}}"#);
    let usage = usage_of(|| {
        assert!(Header::parse(dense.as_bytes(), 1).is_ok());
    });
    let bound = dense.len() as isize * 16;
    assert!(usage.peak_bytes <= bound, "{} of {bound}", usage.peak_bytes);

    let huge = r#"{"t":{"dtype":"U8","shape":[1000000000000],"data_offsets":[0,1000000000000]}}"#;
    let usage = usage_of(|| {
        let error = Header::parse(huge.as_bytes(), 5).unwrap_err();
        assert!(error.to_string().contains("truncated"), "{error}");
    });
    assert!(
        usage.peak_bytes <= 16 * huge.len() as isize,
        "{}",
        usage.peak_bytes
    );
}

#[test]
#[cfg(feature = "bincode")]
fn a_hostile_length_is_not_allocated() {
    let claim = [0xfd, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    let bytes = [&[2][..], b"U8", &[1], &claim, &claim, &[0; 100]].concat();
    let usage = usage_of(|| {
        let config = bincode::config::standard();
        assert!(bincode::decode_from_slice::<Tensor, _>(&bytes, config).is_err());
        assert!(bincode::decode_from_std_read::<Tensor, _, _>(&mut &bytes[..], config).is_err());
    });
    assert!(usage.largest_bytes <= 1 << 20, "{}", usage.largest_bytes);
}
