//! Tensors: typed, shaped, strided views of shared memory.

mod copy;
mod layout;
mod reshape;
#[cfg(test)]
mod tests;
mod typed;
mod view;

use std::fmt;

use core_alloc::StorageType;

pub use layout::RANK_MAX;

use crate::storage::zeroed_buffer;
use crate::{DType, Device, Element, TensorStorage, ViewError};
use layout::Layout;

/// A typed, shaped and strided view of shared memory, of rank up to [`RANK_MAX`].
///
/// Cloning and every view (narrow, slice, transpose, …) are O(1), share the memory and allocate nothing.
/// Writing needs the memory alone: what is shared answers with an error.
///
/// ```
/// use core_view::Tensor;
///
/// let tensor = Tensor::from_vec(vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
/// let column = tensor.transpose(0, 1)?.narrow(0, 1, 1)?;
/// assert_eq!(column.shape(), [1, 2]);
/// assert_eq!(column.to_vec::<f32>()?, [2.0, 5.0]);
/// assert!(tensor.transpose(0, 1)?.reshape(&[6]).is_err());
/// assert_eq!(tensor.reshape(&[3, 2])?.get::<f32>(&[2, 0])?, 5.0);
/// # Ok::<(), core_view::ViewError>(())
/// ```
pub struct Tensor {
    storage: TensorStorage,
    layout: Layout,
    /// Index in the storage of the first element; meaningless if there is none.
    offset: usize,
    dtype: DType,
}

impl Clone for Tensor {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            storage: self.storage.clone(),
            layout: self.layout.duplicate(),
            offset: self.offset,
            dtype: self.dtype,
        }
    }
}

const _: () = {
    const fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Tensor>();
};

/// Where a tensor's first element is, in the address space of its device: to compare and to print, not to
/// dereference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataPtr(u64);

impl DataPtr {
    /// The address as a number.
    pub fn addr(self) -> u64 {
        self.0
    }
}

impl fmt::Display for DataPtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Tensor {
    /// Takes over a vector of elements in row-major order, without a copy.
    ///
    /// # Errors
    /// [`ViewError::LengthMismatch`] if the shape has another number of elements,
    /// [`ViewError::RankTooHigh`], [`ViewError::SizeOverflow`].
    pub fn from_vec<T: Element>(elements: Vec<T>, shape: &[usize]) -> Result<Self, ViewError> {
        Self::from_storage(TensorStorage::from_vec(elements), T::DTYPE, shape)
    }

    /// Copies elements in row-major order.
    ///
    /// # Errors
    /// As [`Tensor::from_vec`]; [`ViewError::Storage`] if the memory can't be had.
    pub fn from_slice<T: Element>(elements: &[T], shape: &[usize]) -> Result<Self, ViewError> {
        Self::from_storage(TensorStorage::from_slice(elements)?, T::DTYPE, shape)
    }

    /// A tensor of zeros in memory of its own.
    ///
    /// # Errors
    /// [`ViewError::RankTooHigh`], [`ViewError::SizeOverflow`], [`ViewError::PartialByte`] for a type
    /// narrower than a byte that does not fill whole bytes, [`ViewError::Storage`].
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self, ViewError> {
        let layout = Layout::row_major(shape, dtype)?;
        let len = layout.len_bytes(dtype)?;
        Ok(Self {
            storage: TensorStorage::from(zeroed_buffer(len)?),
            layout,
            offset: 0,
            dtype,
        })
    }

    /// A tensor over all bytes of a storage, its elements in row-major order.
    ///
    /// # Errors
    /// [`ViewError::LengthMismatch`] if the shape needs another number of bytes,
    /// [`ViewError::RankTooHigh`], [`ViewError::SizeOverflow`].
    pub fn from_storage(
        storage: TensorStorage,
        dtype: DType,
        shape: &[usize],
    ) -> Result<Self, ViewError> {
        let layout = Layout::row_major(shape, dtype)?;
        let elements = layout.elements();
        if dtype.len_bytes(elements) != Some(storage.len()) {
            return Err(ViewError::LengthMismatch {
                dtype,
                elements,
                len_bytes: storage.len(),
            });
        }
        Ok(Self {
            storage,
            layout,
            offset: 0,
            dtype,
        })
    }

    /// A tensor over a storage with strides of the caller's choice (in elements, of either sign), its first
    /// element at index `offset_elements` of the storage.
    ///
    /// Strides may let elements share memory; such a tensor can be read and not written.
    ///
    /// # Errors
    /// [`ViewError::LayoutOutOfBounds`] if an element would lie outside the storage,
    /// [`ViewError::StrideCountMismatch`], [`ViewError::RankTooHigh`], [`ViewError::SizeOverflow`].
    pub fn from_storage_strided(
        storage: TensorStorage,
        dtype: DType,
        shape: &[usize],
        strides: &[isize],
        offset_elements: usize,
    ) -> Result<Self, ViewError> {
        let layout = Layout::strided(shape, strides, dtype)?;
        let fits = || {
            let (low, high) = layout.reach()?;
            offset_elements.checked_add_signed(low)?;
            let end = offset_elements.checked_add_signed(high)?.checked_add(1)?;
            let end_bits = end as u128 * dtype.bits() as u128;
            (end_bits <= storage.len() as u128 * 8).then_some(())
        };
        if !layout.is_empty() && fits().is_none() {
            return Err(ViewError::LayoutOutOfBounds {
                shape: shape.to_vec(),
                offset_elements,
                size_bytes: storage.len(),
            });
        }
        Ok(Self {
            storage,
            layout,
            offset: offset_elements,
            dtype,
        })
    }

    /// The lengths of the dimensions, outermost first.
    #[inline]
    pub fn shape(&self) -> &[usize] {
        self.layout.dims()
    }

    /// The distances between neighbours in each dimension, in elements.
    #[inline]
    pub fn strides(&self) -> &[isize] {
        self.layout.strides()
    }

    /// Number of dimensions.
    #[inline]
    pub fn rank(&self) -> usize {
        self.layout.rank()
    }

    /// Type of the elements.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.layout.elements()
    }

    /// Whether the elements lie one after the other in row-major order.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// Where the memory is.
    pub fn device(&self) -> Device {
        match self.storage.storage_type() {
            StorageType::Device(ordinal) => Device::Cuda(ordinal),
            _ => Device::Cpu,
        }
    }

    /// The memory that this tensor is a view of; more than the tensor's elements if it was narrowed.
    pub fn storage(&self) -> &TensorStorage {
        &self.storage
    }

    /// The bytes of the storage from the lowest to the highest element, for types of whole bytes.
    #[cfg(feature = "ndarray")]
    pub(crate) fn reached_bytes(&self) -> std::ops::Range<usize> {
        let size_bytes = self.dtype.size_bytes().unwrap_or(0);
        match self.layout.reach() {
            Some((low, high)) => {
                let start = self.offset.wrapping_add_signed(low);
                let end = self.offset.wrapping_add_signed(high) + 1;
                start * size_bytes..end * size_bytes
            }
            None => 0..0,
        }
    }

    /// Lowest and highest distance in elements from the first element; `None` if there is none.
    #[cfg(feature = "dlpack")]
    pub(crate) fn reach_of(
        dims: &[usize],
        strides: &[isize],
        dtype: DType,
    ) -> Result<Option<(isize, isize)>, ViewError> {
        let layout = Layout::strided(dims, strides, dtype)?;
        if layout.is_empty() {
            return Ok(None);
        }
        layout.reach().map(Some).ok_or_else(|| ViewError::Foreign {
            reason: format!("strides {strides:?} overflow for shape {dims:?}"),
        })
    }

    /// The strides of row-major order.
    #[cfg(feature = "dlpack")]
    pub(crate) fn row_major_strides(dims: &[usize], dtype: DType) -> Result<Vec<isize>, ViewError> {
        Ok(Layout::row_major(dims, dtype)?.strides().to_vec())
    }

    #[cfg(any(feature = "ndarray", feature = "dlpack"))]
    pub(crate) fn storage_mut(&mut self) -> &mut TensorStorage {
        &mut self.storage
    }

    /// Gives up the tensor for the memory that it is a view of.
    pub fn into_storage(self) -> TensorStorage {
        self.storage
    }

    /// Index in the storage of the first element, in elements; 0 if there is none.
    pub fn offset(&self) -> usize {
        if self.layout.is_empty() {
            0
        } else {
            self.offset
        }
    }

    /// The address of the first element (of the byte that holds its first bit).
    pub fn data_ptr(&self) -> DataPtr {
        let distance = self.offset() as u128 * self.dtype.bits() as u128 / 8;
        DataPtr(self.storage.as_ptr().addr() as u64 + distance as u64)
    }

    /// Whether this is the only holder of the memory at this moment.
    pub fn is_unique(&self) -> bool {
        self.storage.is_unique()
    }

    /// Makes the tensor writable: in place if it holds writable memory alone, else by a copy of its elements.
    ///
    /// # Errors
    /// As [`Tensor::deep_clone`].
    pub fn make_unique(&mut self) -> Result<(), ViewError> {
        if !self.layout.is_injective() || self.storage.get_mut().is_err() {
            *self = self.deep_clone()?;
        }
        Ok(())
    }

    /// The tensor on `device`; itself if it is there already.
    ///
    /// # Errors
    /// [`ViewError::UnsupportedDevice`], which names the devices that exist.
    pub fn to(&self, device: Device) -> Result<Self, ViewError> {
        if device != self.device() {
            device.require_available()?;
        }
        Ok(self.clone())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("dtype", &self.dtype)
            .field("shape", &self.shape())
            .field("strides", &self.strides())
            .field("offset_elements", &self.offset())
            .field("storage", &self.storage)
            .finish()
    }
}
