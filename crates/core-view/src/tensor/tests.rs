use super::*;
use crate::{BufferMut, F8E4M3};

mod model;

fn counted(shape: &[usize]) -> Tensor {
    let elements = shape.iter().product::<usize>() as u32;
    Tensor::from_vec((0..elements).collect(), shape).unwrap()
}

#[test]
fn a_shape_must_fit_its_data() {
    assert!(matches!(
        Tensor::from_vec(vec![0_u16; 5], &[2, 3]),
        Err(ViewError::LengthMismatch {
            elements: 6,
            len_bytes: 10,
            ..
        })
    ));
    assert!(matches!(
        Tensor::from_vec(vec![0_u8; 1], &[1; 9]),
        Err(ViewError::RankTooHigh {
            rank: 9,
            rank_max: 8
        })
    ));
    assert!(matches!(
        Tensor::from_vec(vec![0_u8; 0], &[1 << 40, 1 << 40]),
        Err(ViewError::SizeOverflow { .. })
    ));
    assert!(matches!(
        Tensor::zeros(DType::F64, &[1 << 62]),
        Err(ViewError::SizeOverflow { .. })
    ));
    let scalar = Tensor::from_vec(vec![7_i64], &[]).unwrap();
    assert_eq!(
        (
            scalar.rank(),
            scalar.elements(),
            scalar.get::<i64>(&[]).unwrap()
        ),
        (0, 1, 7)
    );
    let empty = Tensor::from_vec(Vec::<f32>::new(), &[usize::MAX, 0, usize::MAX]).unwrap();
    assert_eq!(empty.elements(), 0);
    assert_eq!(empty.as_slice::<f32>().unwrap(), [] as [f32; 0]);
}

#[test]
fn strides_and_offsets_are_held_inside_the_storage() {
    let storage = TensorStorage::from_vec((0_u16..10).collect());
    let strided = |shape: &[usize], strides: &[isize], offset| {
        Tensor::from_storage_strided(storage.clone(), DType::U16, shape, strides, offset)
    };
    let reversed = strided(&[5], &[-2], 9).unwrap();
    assert_eq!(reversed.to_vec::<u16>().unwrap(), [9, 7, 5, 3, 1]);
    for (shape, strides, offset) in [
        (&[5][..], &[-2][..], 7),
        (&[6], &[2], 0),
        (&[1], &[0], 10),
        (&[2], &[isize::MAX], 1),
        (&[2], &[isize::MIN], 0),
        (&[3, 3], &[isize::MAX, isize::MAX], 0),
        (&[1], &[1], usize::MAX),
    ] {
        assert!(
            matches!(
                strided(shape, strides, offset),
                Err(ViewError::LayoutOutOfBounds { .. })
            ),
            "{shape:?} {strides:?} {offset}"
        );
    }
    assert!(matches!(
        strided(&[2], &[1, 1], 0),
        Err(ViewError::StrideCountMismatch {
            strides: 2,
            rank: 1
        })
    ));
    let one_past = Tensor::from_storage_strided(storage.clone(), DType::U8, &[1], &[1], 20);
    assert!(matches!(one_past, Err(ViewError::LayoutOutOfBounds { .. })));
    assert!(Tensor::from_storage_strided(storage.clone(), DType::F4, &[1], &[1], 39).is_ok());
    assert!(Tensor::from_storage_strided(storage.clone(), DType::F4, &[1], &[1], 40).is_err());
    assert!(strided(&[0, 3], &[isize::MAX, isize::MIN], usize::MAX).is_ok());
    assert!(strided(&[1, 10], &[isize::MIN, 1], 0).is_ok());
}

#[test]
fn wrong_arguments_are_errors() {
    let tensor = counted(&[2, 3]);
    assert!(matches!(
        tensor.narrow(2, 0, 1),
        Err(ViewError::NoSuchDimension { dim: 2, rank: 2 })
    ));
    assert!(matches!(
        tensor.narrow(1, 2, 2),
        Err(ViewError::RangeOutOfBounds { end: 4, len: 3, .. })
    ));
    assert!(tensor.narrow(1, usize::MAX, usize::MAX).is_err());
    assert!(matches!(tensor.slice(0, .., 0), Err(ViewError::ZeroStep)));
    let (start, end) = (2, 1);
    assert!(tensor.slice(1, start..end, 1).is_err());
    assert!(tensor.slice(1, ..=usize::MAX, 1).is_err());
    assert!(tensor.select(0, 2).is_err());
    assert!(matches!(
        tensor.squeeze(0),
        Err(ViewError::NotSqueezable { dim: 0, len: 2 })
    ));
    assert!(tensor.unsqueeze(3).is_err());
    assert!(matches!(
        counted(&[1; 8]).unsqueeze(0),
        Err(ViewError::RankTooHigh { .. })
    ));
    assert!(matches!(
        tensor.permute(&[0, 0]),
        Err(ViewError::NotAPermutation { .. })
    ));
    assert!(tensor.permute(&[0]).is_err() && tensor.permute(&[0, 2]).is_err());
    assert!(matches!(
        tensor.broadcast_to(&[4, 3]),
        Err(ViewError::NotBroadcastable { .. })
    ));
    assert!(tensor.broadcast_to(&[3]).is_err());
    assert!(matches!(
        counted(&[1]).broadcast_to(&[1 << 40, 1 << 40]),
        Err(ViewError::SizeOverflow { .. })
    ));
    assert!(matches!(
        tensor.reshape(&[7]),
        Err(ViewError::ElementCountMismatch { .. })
    ));
    assert!(matches!(
        tensor.get::<f32>(&[0, 0]),
        Err(ViewError::DTypeMismatch { .. })
    ));
    assert!(matches!(
        tensor.get::<u32>(&[0]),
        Err(ViewError::IndexCountMismatch { .. })
    ));
    assert!(matches!(
        tensor.get::<u32>(&[0, 3]),
        Err(ViewError::RangeOutOfBounds { dim: 1, .. })
    ));
    assert!(matches!(
        tensor.transpose(0, 1).unwrap().as_slice::<u32>(),
        Err(ViewError::NeedsCopy { .. })
    ));
}

#[test]
fn slices_take_extreme_steps() {
    let tensor = counted(&[4]);
    for step in [isize::MAX, isize::MIN + 1, isize::MIN] {
        let one = tensor.slice(0, .., step).unwrap();
        assert_eq!(one.elements(), 1, "{step}");
        assert_eq!(one.to_vec::<u32>().unwrap(), [if step > 0 { 0 } else { 3 }]);
    }
}

#[test]
fn shared_tensors_are_not_written() {
    let mut tensor = counted(&[2, 3]);
    let mut view = tensor.narrow(1, 1, 2).unwrap();
    let other = counted(&[2, 2]);
    assert!(matches!(view.copy_(&other), Err(ViewError::Shared { .. })));
    assert!(matches!(
        tensor.set(&[0, 0], 1_u32),
        Err(ViewError::Shared { .. })
    ));
    assert!(matches!(
        tensor.as_mut_slice::<u32>(),
        Err(ViewError::Shared { .. })
    ));
    view.make_unique().unwrap();
    view.copy_(&other).unwrap();
    assert_eq!(tensor.to_vec::<u32>().unwrap(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(view.to_vec::<u32>().unwrap(), [0, 1, 2, 3]);
    assert_eq!(view.storage().len(), 16);
    tensor.as_mut_slice::<u32>().unwrap()[5] = 50;
    assert_eq!(tensor.get::<u32>(&[1, 2]).unwrap(), 50);
}

#[test]
fn a_view_that_is_alone_is_written_in_place() {
    let mut view = counted(&[3, 4])
        .slice(1, .., -2)
        .unwrap()
        .transpose(0, 1)
        .unwrap();
    assert_eq!(view.to_vec::<u32>().unwrap(), [3, 7, 11, 1, 5, 9]);
    let address = view.data_ptr();
    view.copy_(&Tensor::from_vec(vec![100_u32, 101, 102, 103, 104, 105], &[2, 3]).unwrap())
        .unwrap();
    view.set(&[1, 2], 7_u32).unwrap();
    view.make_unique().unwrap();
    assert_eq!(view.data_ptr(), address);
    assert_eq!(
        view.into_storage().as_slice_of::<u32>().unwrap(),
        [0, 103, 2, 100, 4, 104, 6, 101, 8, 7, 10, 102]
    );
}

#[test]
fn broadcast_forbids_mutation() {
    let mut row = counted(&[1, 3]).broadcast_to(&[2, 3]).unwrap();
    assert!(row.is_unique());
    let source = counted(&[2, 3]);
    assert!(matches!(
        row.copy_(&source),
        Err(ViewError::Overlapping { .. })
    ));
    assert!(matches!(
        row.set(&[0, 0], 1_u32),
        Err(ViewError::Overlapping { .. })
    ));
    assert!(row.as_mut_slice::<u32>().is_err());
    row.make_unique().unwrap();
    row.copy_(&source).unwrap();
    assert_eq!(row.to_vec::<u32>().unwrap(), [0, 1, 2, 3, 4, 5]);
    let windows = TensorStorage::from_vec((0_u8..8).collect());
    let mut windows =
        Tensor::from_storage_strided(windows, DType::U8, &[3, 4], &[2, 1], 0).unwrap();
    assert_eq!(windows.get::<u8>(&[2, 3]).unwrap(), 7);
    assert!(matches!(
        windows.set(&[0, 0], 1_u8),
        Err(ViewError::Overlapping { .. })
    ));
}

#[test]
fn copies_demand_equal_shapes_and_types() {
    let mut tensor = counted(&[2, 3]);
    assert!(matches!(
        tensor.copy_(&counted(&[3, 2])),
        Err(ViewError::ShapeMismatch { .. })
    ));
    let floats = Tensor::zeros(DType::F32, &[2, 3]).unwrap();
    assert!(matches!(
        tensor.copy_(&floats),
        Err(ViewError::DTypeMismatch { .. })
    ));
}

#[test]
fn packed_elements_are_viewed_and_gathered() {
    let packed = TensorStorage::from_vec(vec![0x10_u8, 0x32, 0x54, 0x76]);
    let tensor = Tensor::from_storage(packed, DType::F4, &[2, 4]).unwrap();
    assert_eq!(tensor.get_bits(&[1, 2]).unwrap(), 6);
    let column = tensor.narrow(1, 1, 2).unwrap().transpose(0, 1).unwrap();
    let gathered = column.contiguous().unwrap();
    assert_eq!(gathered.as_bytes().unwrap(), [0x51, 0x62]);
    let odd = tensor.flatten().unwrap().narrow(0, 1, 2).unwrap();
    assert!(matches!(
        odd.as_bytes(),
        Err(ViewError::PartialByte {
            offset_elements: 1,
            ..
        })
    ));
    assert_eq!(odd.deep_clone().unwrap().as_bytes().unwrap(), [0x21]);
    let three = tensor.flatten().unwrap().narrow(0, 0, 3).unwrap();
    assert!(matches!(
        three.deep_clone(),
        Err(ViewError::PartialByte { .. })
    ));
    let sixes = TensorStorage::from_vec(vec![0x81, 0x30, 0x10_u8]);
    let sixes = Tensor::from_storage(sixes, DType::F6E2M3, &[4]).unwrap();
    let bits: Vec<_> = (0..4).map(|i| sixes.get_bits(&[i]).unwrap()).collect();
    assert_eq!(bits, [1, 2, 3, 4]);
    let mut flipped = Tensor::zeros(DType::F6E2M3, &[4]).unwrap();
    flipped.copy_(&sixes.flip(0).unwrap()).unwrap();
    let bits: Vec<_> = (0..4).map(|i| flipped.get_bits(&[i]).unwrap()).collect();
    assert_eq!(bits, [4, 3, 2, 1]);
}

#[test]
fn unaligned_data_is_read_by_copy() {
    let bytes: Vec<u8> = std::iter::once(0)
        .chain(1.5_f32.to_ne_bytes())
        .chain(2.5_f32.to_ne_bytes())
        .collect();
    let storage = TensorStorage::from(BufferMut::from_vec(bytes));
    let at = if storage.is_aligned_to(4) { 1 } else { 0 };
    let storage = storage.view(at, 8).unwrap();
    let tensor = Tensor::from_storage(storage, DType::F32, &[2]).unwrap();
    if at == 1 {
        assert!(matches!(
            tensor.as_slice::<f32>(),
            Err(ViewError::Misaligned { .. })
        ));
        assert_eq!(tensor.to_vec::<f32>().unwrap(), [1.5, 2.5]);
        assert_eq!(tensor.get::<f32>(&[1]).unwrap(), 2.5);
        assert_eq!(
            tensor.deep_clone().unwrap().as_slice::<f32>().unwrap(),
            [1.5, 2.5]
        );
    }
}

#[test]
fn bytes_that_are_no_bool_never_become_one() {
    let storage = TensorStorage::from_vec(vec![1_u8, 0, 3]);
    let tensor = Tensor::from_storage(storage, DType::Bool, &[3]).unwrap();
    assert!(matches!(
        tensor.as_slice::<bool>(),
        Err(ViewError::InvalidValue { value: 3, .. })
    ));
    assert!(tensor.to_vec::<bool>().is_err() && tensor.get::<bool>(&[2]).is_err());
    assert!(tensor.get::<bool>(&[0]).unwrap());
    assert_eq!(tensor.as_bytes().unwrap(), [1, 0, 3]);
}

#[test]
fn a_tensor_knows_its_place() {
    let tensor = Tensor::from_slice(&[F8E4M3(0x38); 4], &[4]).unwrap();
    assert_eq!(
        (tensor.dtype(), tensor.device()),
        (DType::F8E4M3, Device::Cpu)
    );
    let moved = tensor.to(Device::Cpu).unwrap();
    assert_eq!(moved.data_ptr(), tensor.data_ptr());
    let error = tensor.to(Device::Cuda(3)).unwrap_err().to_string();
    assert!(
        error.contains("cuda:3") && error.contains("available: cpu"),
        "{error}"
    );
    let tail = tensor.narrow(0, 3, 1).unwrap();
    assert_eq!(tail.data_ptr().addr(), tensor.data_ptr().addr() + 3);
    assert_eq!(
        format!("{}", tail.data_ptr()),
        format!("{:#x}", tail.data_ptr().addr())
    );
}
