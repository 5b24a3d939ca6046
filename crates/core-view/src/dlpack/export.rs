//! Tensors for other libraries.

use std::ffi::c_void;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use core_alloc::StorageType;

use super::abi::{
    DEVICE_CPU, DEVICE_CUDA_HOST, DlDataType, DlDevice, DlManagedTensorVersioned, DlTensor,
    DlVersion, FLAG_READ_ONLY, VERSION_MAJOR, VERSION_MINOR,
};
use crate::{RANK_MAX, Tensor, ViewError};

/// What an exported tensor consists of; the deleter frees all of it.
struct Export {
    managed: DlManagedTensorVersioned,
    shape: [i64; RANK_MAX],
    strides: [i64; RANK_MAX],
    _tensor: Tensor,
}

/// A tensor that is ready to be handed to another library, and is freed if it is not.
pub struct DlpackTensor {
    managed: NonNull<DlManagedTensorVersioned>,
}

// SAFETY: the export is owned by this value alone, and a tensor may be dropped on any thread.
unsafe impl Send for DlpackTensor {}

impl Tensor {
    /// Hands the tensor to another library, without a copy.
    ///
    /// The other library may write to it only if nobody else holds the memory and no two elements share a
    /// place; otherwise it is flagged as read-only.
    ///
    /// # Errors
    /// [`ViewError::Foreign`] for what DLPack can't express: a type that it lacks, or a first element that
    /// does not start at a byte.
    pub fn into_dlpack(mut self) -> Result<DlpackTensor, ViewError> {
        let dtype = DlDataType::of(self.dtype()).ok_or_else(|| ViewError::Foreign {
            reason: format!("DLPack has no type for {}", self.dtype()),
        })?;
        let offset_bits = self.offset() as u128 * self.dtype().bits() as u128;
        if !offset_bits.is_multiple_of(8) {
            return Err(ViewError::Foreign {
                reason: format!("its first element starts at bit {offset_bits}, inside a byte"),
            });
        }
        let is_writable =
            self.require_distinct_elements().is_ok() && self.storage_mut().get_mut().is_ok();
        let data = self.storage().as_ptr().cast_mut();
        let export = Box::new(Export {
            managed: DlManagedTensorVersioned {
                version: DlVersion {
                    major: VERSION_MAJOR,
                    minor: VERSION_MINOR,
                },
                manager_ctx: std::ptr::null_mut(),
                deleter: Some(delete),
                flags: if is_writable { 0 } else { FLAG_READ_ONLY },
                dl_tensor: DlTensor {
                    // Some consumers overlook `byte_offset`, so the pointer carries it all.
                    data: data.wrapping_add((offset_bits / 8) as usize).cast(),
                    device: device_of(&self),
                    ndim: self.rank() as i32,
                    dtype,
                    shape: std::ptr::null_mut(),
                    strides: std::ptr::null_mut(),
                    byte_offset: 0,
                },
            },
            shape: numbers(self.shape(), |&dim| dim as i64),
            strides: numbers(self.strides(), |&stride| stride as i64),
            _tensor: self,
        });
        Ok(DlpackTensor {
            managed: connect(export),
        })
    }
}

fn numbers<T>(values: &[T], convert: impl Fn(&T) -> i64) -> [i64; RANK_MAX] {
    let mut numbers = [0; RANK_MAX];
    for (number, value) in numbers.iter_mut().zip(values) {
        *number = convert(value);
    }
    numbers
}

fn device_of(tensor: &Tensor) -> DlDevice {
    let device_type = match tensor.storage().storage_type() {
        StorageType::Pinned => DEVICE_CUDA_HOST,
        _ => DEVICE_CPU,
    };
    DlDevice {
        device_type,
        device_id: 0,
    }
}

/// Sets the pointers of an export into itself, once it has its final address.
fn connect(export: Box<Export>) -> NonNull<DlManagedTensorVersioned> {
    let export = NonNull::from(Box::leak(export)).as_ptr();
    // SAFETY: the box was leaked, so the pointer is valid for writes and nobody else has it.
    let place = unsafe { &mut *export };
    let (shape, strides) = (place.shape.as_mut_ptr(), place.strides.as_mut_ptr());
    place.managed.dl_tensor.shape = shape;
    place.managed.dl_tensor.strides = strides;
    place.managed.manager_ctx = export.cast::<c_void>();
    NonNull::from(&mut place.managed)
}

/// The deleter of every export.
///
/// # Safety
/// `managed` must be a pointer that [`connect`] made and that was not deleted before.
unsafe extern "C" fn delete(managed: *mut DlManagedTensorVersioned) {
    if managed.is_null() {
        return;
    }
    // SAFETY: the caller passes an export that is alive.
    let export = unsafe { (*managed).manager_ctx }.cast::<Export>();
    // SAFETY: the context is the leaked box of the export, and the caller deletes it only once.
    drop(unsafe { Box::from_raw(export) });
}

impl DlpackTensor {
    /// Gives the tensor away; whoever takes it calls its deleter exactly once.
    pub fn into_raw(self) -> NonNull<DlManagedTensorVersioned> {
        ManuallyDrop::new(self).managed
    }

    /// Whether the other library may write to it.
    pub fn is_writable(&self) -> bool {
        // SAFETY: the export is alive as long as this value.
        let managed = unsafe { self.managed.as_ref() };
        managed.flags & FLAG_READ_ONLY == 0
    }
}

impl Drop for DlpackTensor {
    fn drop(&mut self) {
        // SAFETY: the export was not given away, so this is the one call.
        unsafe { delete(self.managed.as_ptr()) };
    }
}

impl fmt::Debug for DlpackTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DlpackTensor")
            .field("is_writable", &self.is_writable())
            .finish()
    }
}
