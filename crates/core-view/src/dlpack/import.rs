//! Tensors of other libraries.

#![deny(clippy::indexing_slicing)]

use std::ptr::NonNull;
use std::sync::Arc;

use core_alloc::StorageType;

use super::abi::{
    DEVICE_CPU, DEVICE_CUDA_HOST, DlManagedTensorVersioned, DlTensor, FLAG_READ_ONLY,
    FLAG_SUBBYTE_PADDED, VERSION_MAJOR,
};
use crate::{Access, BufferOwner, DType, RANK_MAX, Tensor, TensorStorage, ViewError};

/// A foreign tensor; its deleter is called when this is dropped.
struct Foreign {
    managed: NonNull<DlManagedTensorVersioned>,
    access: Access,
    kind: StorageType,
}

// SAFETY: the importing caller promises that the deleter may be called on any thread, and nothing else is
// done with the tensor here.
unsafe impl Send for Foreign {}
// SAFETY: as above; a shared reference gives no access to the foreign tensor.
unsafe impl Sync for Foreign {}

impl Drop for Foreign {
    fn drop(&mut self) {
        // SAFETY: the importing caller handed over a live tensor; the field's place does not depend on the
        // version.
        let deleter = unsafe { (*self.managed.as_ptr()).deleter };
        if let Some(deleter) = deleter {
            // SAFETY: the tensor was handed over, so this is the one call.
            unsafe { deleter(self.managed.as_ptr()) };
        }
    }
}

// SAFETY: the importing caller promises that the memory stays put and initialised until the deleter is
// called, and that nobody else writes to it.
unsafe impl BufferOwner for Foreign {
    fn storage_type(&self) -> StorageType {
        self.kind
    }

    fn access(&self) -> Access {
        self.access
    }
}

fn refuse(reason: impl Into<String>) -> ViewError {
    ViewError::Foreign {
        reason: reason.into(),
    }
}

impl Tensor {
    /// Takes over a tensor of another library, without a copy.
    ///
    /// The tensor's deleter is called exactly once: when the last view is gone, or before this returns an
    /// error. A tensor that is flagged as read-only is never written here.
    ///
    /// # Safety
    /// - `managed` must point to a live tensor as DLPack defines it, which the caller gives away, and its
    ///   deleter may be called on any thread.
    /// - Until the deleter is called, the memory that shape and strides describe must be initialised, and
    ///   nothing else may write to it. If it is not flagged as read-only, nothing else may read it either
    ///   while it is written here.
    ///
    /// # Errors
    /// [`ViewError::Foreign`] for what can't be viewed here: another major version, a device other than the
    /// host, a type without counterpart, vector elements, padded packed types, a negative length, a null
    /// pointer; [`ViewError::RankTooHigh`], [`ViewError::SizeOverflow`].
    pub unsafe fn from_dlpack(
        managed: NonNull<DlManagedTensorVersioned>,
    ) -> Result<Self, ViewError> {
        let mut owner = Foreign {
            managed,
            access: Access::ReadOnly,
            kind: StorageType::System,
        };
        // SAFETY: the caller passes a live tensor; the version comes first in every layout.
        let version = unsafe { (*managed.as_ptr()).version };
        if version.major != VERSION_MAJOR {
            return Err(refuse(format!(
                "its version is {}.{} and {VERSION_MAJOR}.x is understood",
                version.major, version.minor
            )));
        }
        // SAFETY: the caller passes a live tensor, whose version has this layout.
        let foreign = unsafe { managed.as_ref() };
        let described = Described::read(&foreign.dl_tensor, foreign.flags)?;
        if foreign.flags & FLAG_READ_ONLY == 0 {
            owner.access = Access::ReadWrite;
        }
        owner.kind = described.kind;
        described.over(owner)
    }
}

/// A foreign tensor's description, checked as far as it can be without its memory.
struct Described {
    kind: StorageType,
    dtype: DType,
    dims: Vec<usize>,
    strides: Vec<isize>,
    /// Address of the first element; `None` if there is no memory.
    start: Option<*mut u8>,
}

impl Described {
    fn read(tensor: &DlTensor, flags: u64) -> Result<Self, ViewError> {
        let kind = match tensor.device.device_type {
            DEVICE_CPU => StorageType::System,
            DEVICE_CUDA_HOST => StorageType::Pinned,
            other => {
                return Err(refuse(format!(
                    "it is on a device of type {other}; copy it to the host first"
                )));
            }
        };
        let dtype = tensor.dtype.to_dtype().ok_or_else(|| {
            let found = tensor.dtype;
            refuse(format!(
                "type code {} of {} bits and {} lanes has no counterpart",
                found.code, found.bits, found.lanes
            ))
        })?;
        if dtype.size_bytes().is_none() && flags & FLAG_SUBBYTE_PADDED != 0 {
            return Err(refuse(format!("its {dtype} elements are padded to bytes")));
        }
        let rank = usize::try_from(tensor.ndim)
            .map_err(|_| refuse(format!("its rank is {}", tensor.ndim)))?;
        if rank > RANK_MAX {
            return Err(ViewError::RankTooHigh {
                rank,
                rank_max: RANK_MAX,
            });
        }
        // SAFETY: DLPack promises `ndim` lengths at the pointer.
        let dims = unsafe { read_numbers(tensor.shape, rank) }
            .ok_or_else(|| refuse("its shape is a null pointer"))?
            .into_iter()
            .map(|length| {
                usize::try_from(length)
                    .map_err(|_| refuse(format!("a dimension has the length {length}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        // SAFETY: DLPack promises `ndim` strides at the pointer unless it is null.
        let strides = match unsafe { read_numbers(tensor.strides, rank) } {
            Some(strides) => strides.into_iter().map(|stride| stride as isize).collect(),
            None => Tensor::row_major_strides(&dims, dtype)?,
        };
        let offset = usize::try_from(tensor.byte_offset)
            .map_err(|_| refuse(format!("its offset is {} bytes", tensor.byte_offset)))?;
        Ok(Self {
            kind,
            dtype,
            dims,
            strides,
            start: NonNull::new(tensor.data)
                .map(|data| data.as_ptr().cast::<u8>().wrapping_add(offset)),
        })
    }

    /// The tensor over the memory that the description reaches.
    fn over(self, owner: Foreign) -> Result<Tensor, ViewError> {
        let reach = Tensor::reach_of(&self.dims, &self.strides, self.dtype)?;
        let (below, elements) = match reach {
            Some((low, high)) => {
                let below = low.unsigned_abs();
                (
                    below,
                    below
                        .checked_add(high.unsigned_abs())
                        .and_then(|last| last.checked_add(1)),
                )
            }
            None => (0, Some(0)),
        };
        let bits = self.dtype.bits() as u128;
        let len = elements.map(|elements| (elements as u128 * bits).div_ceil(8));
        let len = len
            .and_then(|len| isize::try_from(len).ok())
            .ok_or_else(|| refuse("it reaches further than memory can"))?
            .unsigned_abs();
        let below_bits = below as u128 * bits;
        if !below_bits.is_multiple_of(8) {
            return Err(refuse("its lowest element starts inside a byte"));
        }
        let lowest = self
            .start
            .and_then(|start| NonNull::new(start.wrapping_sub((below_bits / 8) as usize)));
        let pointer = match lowest {
            _ if len == 0 => NonNull::dangling(),
            Some(lowest) => lowest,
            None => return Err(refuse("its data is a null pointer")),
        };
        // SAFETY: the importing caller promises that the memory that shape and strides reach is initialised
        // and stays so while the owner lives, and who may write to it.
        let storage = unsafe { TensorStorage::from_owner(pointer, len, Arc::new(owner)) };
        Tensor::from_storage_strided(storage, self.dtype, &self.dims, &self.strides, below)
    }
}

/// Copies `count` numbers; `None` for a null pointer where there should be some.
///
/// # Safety
/// `numbers` must be null or point to `count` numbers.
unsafe fn read_numbers(numbers: *const i64, count: usize) -> Option<Vec<i64>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let numbers = NonNull::new(numbers.cast_mut())?;
    let read = |index| {
        // SAFETY: the caller promises `count` numbers.
        let place = unsafe { numbers.add(index) };
        // SAFETY: as above; a foreign array may lie at any address.
        unsafe { place.read_unaligned() }
    };
    Some((0..count).map(read).collect())
}
