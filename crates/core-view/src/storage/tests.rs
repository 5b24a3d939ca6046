use super::*;
use crate::DType;

#[test]
fn views_of_views_are_views_of_the_memory() {
    let storage = TensorStorage::from_vec((0_u8..100).collect());
    let outer = storage.view(10, 50).unwrap();
    let inner = outer.view(5, 10).unwrap();
    assert_eq!(inner.as_slice(), (15..25).collect::<Vec<u8>>());
    assert_eq!((inner.offset(), inner.len()), (15, 10));
    assert_eq!(storage.view(100, 0).unwrap().len(), 0);
    drop((storage, outer));
    assert!(inner.is_unique());
    assert_eq!(inner.as_slice()[9], 24);
}

#[test]
fn views_outside_are_refused_without_wrapping() {
    let view = TensorStorage::from_vec(vec![0_u8; 10]).view(2, 5).unwrap();
    for (offset, len) in [
        (0, 6),
        (5, 1),
        (6, 0),
        (1, usize::MAX),
        (usize::MAX, 1),
        (usize::MAX, usize::MAX),
    ] {
        assert!(
            matches!(
                view.view(offset, len),
                Err(ViewError::OutOfBounds { size_bytes: 5, .. })
            ),
            "{offset} {len}"
        );
    }
}

#[test]
fn shared_memory_is_never_written_in_place() {
    let mut storage = TensorStorage::from_vec(vec![1_u8, 2, 3, 4]);
    let mut view = storage.view(1, 2).unwrap();
    assert!(matches!(
        storage.get_mut(),
        Err(ViewError::Shared { holders: 2 })
    ));
    assert!(matches!(
        storage.as_mut_slice(),
        Err(ViewError::Shared { .. })
    ));
    let bytes = view.make_mut().unwrap();
    assert_eq!(bytes, [2, 3]);
    bytes[0] = 9;
    assert_eq!(storage.as_slice(), [1, 2, 3, 4]);
    assert_eq!((view.as_slice(), view.offset()), (&[9, 3][..], 0));
    let address = storage.as_ptr();
    storage.make_mut().unwrap()[3] = 7;
    assert_eq!((storage.as_ptr(), storage.as_slice()[3]), (address, 7));
}

#[test]
fn uniqueness_is_given_back_when_it_fails() {
    let storage = TensorStorage::from_vec(vec![5_u32; 8]);
    let view = storage.view(8, 16).unwrap();
    let view = view.try_into_unique().unwrap_err();
    let address = view.as_ptr();
    drop(storage);
    let mut buffer = view.try_into_unique().unwrap();
    assert_eq!((buffer.as_ptr(), buffer.len()), (address, 16));
    buffer[0] = 6;
    let storage = TensorStorage::from(buffer);
    assert_eq!(storage.as_slice_of::<u32>().unwrap(), [6, 5, 5, 5]);
    assert_eq!(storage.as_ptr(), address);
}

#[test]
fn a_frozen_part_does_not_see_its_neighbour_as_its_own() {
    let mut left = BufferMut::zeroed(64, 64).unwrap();
    let right = left.split_off(32);
    let mut frozen = TensorStorage::from(right);
    assert!(frozen.get_mut().is_err());
    left[0] = 1;
    drop(left);
    frozen.get_mut().unwrap()[0] = 2;
}

#[test]
fn core_alloc_memory_keeps_its_kind_and_alignment() {
    let storage = SystemAllocator::with_alignment(4096)
        .unwrap()
        .allocate(100)
        .unwrap();
    let storage = TensorStorage::from_storage(storage);
    assert!(storage.is_aligned_to(4096));
    assert_eq!(
        (storage.len(), storage.storage_type()),
        (100, StorageType::System)
    );
    assert_eq!(storage.access(), Access::ReadWrite);
}

#[test]
fn typed_views_are_checked() {
    let mut storage = TensorStorage::from_slice(&[1.5_f32, -2.0, 0.0]).unwrap();
    assert_eq!(storage.as_slice_of::<f32>().unwrap(), [1.5, -2.0, 0.0]);
    assert!(matches!(
        storage.as_slice_of::<u64>(),
        Err(ViewError::PartialElement {
            len_bytes: 12,
            dtype: DType::U64
        })
    ));
    storage.as_mut_slice_of::<f32>().unwrap()[2] = 4.0;
    let tail = storage.view(2, 8).unwrap();
    assert!(matches!(
        tail.as_slice_of::<f32>(),
        Err(ViewError::Misaligned { .. })
    ));
    assert_eq!(
        tail.deep_clone()
            .unwrap()
            .as_slice_of::<f32>()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn empty_storage_does_everything() {
    let mut storage = TensorStorage::from_vec(Vec::<f64>::new());
    assert!(storage.is_empty() && storage.as_slice_of::<f64>().unwrap().is_empty());
    assert!(storage.get_mut().unwrap().is_empty());
    assert!(storage.make_mut().unwrap().is_empty());
    assert!(storage.deep_clone().unwrap().is_empty());
    assert!(storage.view(0, 0).unwrap().is_empty());
    assert_eq!(storage.try_into_unique().unwrap().len(), 0);
}

#[test]
fn holders_on_many_threads_agree_who_is_last() {
    for _ in 0..50 {
        let storage = TensorStorage::from_vec(vec![7_u8; 4096]);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let view = storage.view(1024, 1024).unwrap();
                std::thread::spawn(move || {
                    assert!(view.as_slice().iter().all(|&byte| byte == 7));
                    view.try_into_unique().is_ok_and(|mut buffer| {
                        buffer.fill(8);
                        true
                    })
                })
            })
            .collect();
        drop(storage);
        let winners = threads
            .into_iter()
            .filter(|_| true)
            .map(|thread| thread.join().unwrap())
            .filter(|&won| won)
            .count();
        assert!(winners <= 1);
    }
}
