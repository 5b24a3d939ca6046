use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{DType, Tensor, ViewError};

/// A tensor of a foreign library whose deleter counts.
struct Producer {
    data: Vec<u16>,
    shape: Vec<i64>,
    strides: Option<Vec<i64>>,
    deletions: Box<AtomicUsize>,
    managed: DlManagedTensorVersioned,
}

unsafe extern "C" fn count(managed: *mut DlManagedTensorVersioned) {
    // SAFETY: the tests keep the producer alive until after the deleter.
    let context = unsafe { (*managed).manager_ctx };
    // SAFETY: the context is the producer's counter.
    let counter = unsafe { &*context.cast::<AtomicUsize>() };
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Producer {
    fn new(shape: &[i64], strides: Option<&[i64]>) -> Self {
        Self {
            data: (0..12).collect(),
            shape: shape.to_vec(),
            strides: strides.map(<[i64]>::to_vec),
            deletions: Box::default(),
            managed: DlManagedTensorVersioned {
                version: DlVersion { major: 1, minor: 0 },
                manager_ctx: std::ptr::null_mut(),
                deleter: Some(count),
                flags: 0,
                dl_tensor: DlTensor {
                    data: std::ptr::null_mut(),
                    device: DlDevice {
                        device_type: 1,
                        device_id: 0,
                    },
                    ndim: shape.len() as i32,
                    dtype: DlDataType {
                        code: 1,
                        bits: 16,
                        lanes: 1,
                    },
                    shape: std::ptr::null_mut(),
                    strides: std::ptr::null_mut(),
                    byte_offset: 0,
                },
            },
        }
    }

    fn with(mut self, change: impl FnOnce(&mut DlManagedTensorVersioned)) -> Self {
        self.managed.dl_tensor.data = self.data.as_mut_ptr().cast();
        self.managed.dl_tensor.shape = self.shape.as_mut_ptr();
        self.managed.dl_tensor.strides = self
            .strides
            .as_mut()
            .map_or(std::ptr::null_mut(), |strides| strides.as_mut_ptr());
        self.managed.manager_ctx = (&raw const *self.deletions).cast_mut().cast::<c_void>();
        change(&mut self.managed);
        self
    }

    fn import(&mut self) -> Result<Tensor, ViewError> {
        // SAFETY: the tests keep the producer until the tensor is gone, and touch its data only then.
        unsafe { Tensor::from_dlpack(NonNull::from(&mut self.managed)) }
    }

    fn deletions(&self) -> usize {
        self.deletions.load(Ordering::Relaxed)
    }
}

#[test]
fn foreign_strides_null_strides_and_offsets_are_understood() {
    for (shape, strides, byte_offset, expected) in [
        (&[2, 3][..], None, 0, &[0, 1, 2, 3, 4, 5][..]),
        (&[2, 3], None, 4, &[2, 3, 4, 5, 6, 7]),
        (&[2, 3], Some(&[1, 4][..]), 2, &[1, 5, 9, 2, 6, 10]),
        (&[3], Some(&[-2]), 18, &[9, 7, 5]),
        (&[2, 2], Some(&[0, 1]), 0, &[0, 1, 0, 1]),
        (&[], None, 6, &[3]),
        (&[1, 1], Some(&[i64::MAX, i64::MIN]), 0, &[0]),
    ] {
        let mut producer = Producer::new(shape, strides)
            .with(|managed| managed.dl_tensor.byte_offset = byte_offset);
        let tensor = producer.import().unwrap();
        assert_eq!(
            tensor.to_vec::<u16>().unwrap(),
            expected,
            "{shape:?} {strides:?}"
        );
        let view = tensor.clone();
        drop(tensor);
        assert_eq!(producer.deletions(), 0);
        drop(view);
        assert_eq!(producer.deletions(), 1);
    }
}

#[test]
fn what_is_not_flagged_read_only_may_be_written() {
    let mut producer = Producer::new(&[12], None).with(|_| {});
    let mut tensor = producer.import().unwrap();
    tensor.set(&[3], 99_u16).unwrap();
    drop(tensor);
    assert_eq!((producer.data[3], producer.deletions()), (99, 1));
    let mut producer = Producer::new(&[12], None).with(|managed| managed.flags = FLAG_READ_ONLY);
    let mut tensor = producer.import().unwrap();
    assert!(matches!(tensor.set(&[3], 99_u16), Err(ViewError::ReadOnly)));
    tensor.make_unique().unwrap();
    assert_eq!(producer.deletions(), 1);
    tensor.set(&[3], 99_u16).unwrap();
    assert_eq!(producer.data[3], 3);
}

#[test]
fn a_tensor_without_elements_needs_no_memory() {
    let mut producer = Producer::new(&[3, 0], None).with(|managed| {
        managed.dl_tensor.data = std::ptr::null_mut();
        managed.deleter = None;
    });
    assert_eq!(producer.import().unwrap().shape(), [3, 0]);
    assert_eq!(producer.deletions(), 0);
}

#[test]
fn what_cant_be_taken_over_is_deleted_once_and_named() {
    type Change = fn(&mut DlManagedTensorVersioned);
    type Case = (&'static [i64], Option<&'static [i64]>, Change, &'static str);
    let cases: &[Case] = &[
        (&[2], None, |m| m.version.major = 2, "version"),
        (&[2], None, |m| m.version.major = 0, "version"),
        (
            &[2],
            None,
            |m| m.dl_tensor.device.device_type = 2,
            "device of type 2",
        ),
        (&[2], None, |m| m.dl_tensor.dtype.lanes = 4, "4 lanes"),
        (&[2], None, |m| m.dl_tensor.dtype.bits = 7, "7 bits"),
        (&[2], None, |m| m.dl_tensor.dtype.code = 3, "type code 3"),
        (&[1; 9], None, |_| {}, "rank 9"),
        (&[2], None, |m| m.dl_tensor.ndim = -1, "-1"),
        (&[-2], None, |_| {}, "-2"),
        (
            &[2],
            None,
            |m| m.dl_tensor.data = std::ptr::null_mut(),
            "null",
        ),
        (
            &[2],
            None,
            |m| m.dl_tensor.shape = std::ptr::null_mut(),
            "null",
        ),
        (&[i64::MAX, 2], None, |_| {}, "overflows"),
        (&[3, 3], Some(&[i64::MAX, i64::MAX]), |_| {}, "overflow"),
        (&[2], Some(&[i64::MAX]), |_| {}, "memory"),
        (
            &[2],
            None,
            |m| {
                m.dl_tensor.dtype = DlDataType {
                    code: 17,
                    bits: 4,
                    lanes: 1,
                };
                m.flags = FLAG_SUBBYTE_PADDED;
            },
            "padded",
        ),
    ];
    for (shape, strides, change, fact) in cases {
        let mut producer = Producer::new(shape, *strides).with(change);
        let error = producer.import().unwrap_err().to_string();
        assert!(error.contains(fact), "{error} lacks {fact}");
        assert_eq!(producer.deletions(), 1, "{fact}");
    }
}

#[test]
fn packed_elements_are_taken_over_and_given() {
    let mut producer = Producer::new(&[8], None).with(|managed| {
        managed.dl_tensor.dtype = DlDataType {
            code: 17,
            bits: 4,
            lanes: 1,
        }
    });
    let tensor = producer.import().unwrap();
    assert_eq!(
        (tensor.dtype(), tensor.get_bits(&[4]).unwrap()),
        (DType::F4, 1)
    );
    let odd = tensor.narrow(0, 1, 2).unwrap();
    assert!(matches!(odd.into_dlpack(), Err(ViewError::Foreign { .. })));
    drop(tensor.narrow(0, 2, 2).unwrap().into_dlpack().unwrap());
    drop(tensor);
    assert_eq!(producer.deletions(), 1);
}

#[test]
fn only_memory_held_alone_is_exported_for_writing() {
    let tensor = Tensor::from_vec((0_u32..6).collect(), &[2, 3]).unwrap();
    let shared = tensor.transpose(0, 1).unwrap().into_dlpack().unwrap();
    assert!(!shared.is_writable());
    drop(shared);
    let repeated = tensor
        .narrow(1, 0, 1)
        .unwrap()
        .broadcast_to(&[2, 9])
        .unwrap();
    drop(tensor);
    assert!(!repeated.into_dlpack().unwrap().is_writable());
    let tensor = Tensor::from_vec((0_u32..6).collect(), &[2, 3]).unwrap();
    let view = tensor.flip(1).unwrap();
    drop(tensor);
    let exported = view.into_dlpack().unwrap();
    assert!(exported.is_writable());
    // SAFETY: the pointer was just exported, and nobody else uses it.
    let mut back = unsafe { Tensor::from_dlpack(exported.into_raw()) }.unwrap();
    assert_eq!(back.to_vec::<u32>().unwrap(), [2, 1, 0, 5, 4, 3]);
    back.set(&[0, 0], 20_u32).unwrap();
    assert_eq!(back.get::<u32>(&[0, 0]).unwrap(), 20);
}

#[test]
fn every_type_has_a_counterpart() {
    for dtype in DType::all() {
        let tensor = Tensor::zeros(dtype, &[8]).unwrap();
        // SAFETY: the pointer was just exported, and nobody else uses it.
        let back = unsafe { Tensor::from_dlpack(tensor.into_dlpack().unwrap().into_raw()) };
        assert_eq!(back.unwrap().dtype(), dtype);
    }
}
