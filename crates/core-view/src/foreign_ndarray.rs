//! Views as `ndarray` arrays, and arrays as tensors.

use ndarray::{Array, ArrayViewD, ArrayViewMutD, Axis, Dimension, IxDyn, ShapeBuilder};

use crate::element::{cast_mut_slice, cast_slice};
use crate::{Element, Tensor, TensorStorage, ViewError};

impl Tensor {
    /// Takes over an array with its strides, without a copy.
    ///
    /// # Errors
    /// [`ViewError::RankTooHigh`] for more than [`RANK_MAX`](crate::RANK_MAX) dimensions.
    pub fn from_ndarray<T: Element, D: Dimension>(array: Array<T, D>) -> Result<Self, ViewError> {
        let shape = array.shape().to_vec();
        let strides = array.strides().to_vec();
        let (elements, offset) = array.into_raw_vec_and_offset();
        let storage = TensorStorage::from_vec(elements);
        Self::from_storage_strided(storage, T::DTYPE, &shape, &strides, offset.unwrap_or(0))
    }

    /// The tensor as an array of the same memory, whatever its strides.
    ///
    /// ```
    /// use core_view::Tensor;
    ///
    /// let tensor = Tensor::from_vec(vec![1_i32, 2, 3, 4], &[2, 2])?;
    /// let turned = tensor.transpose(0, 1)?;
    /// assert_eq!(turned.as_ndarray::<i32>()?, ndarray::arr2(&[[1, 3], [2, 4]]).into_dyn());
    /// # Ok::<(), core_view::ViewError>(())
    /// ```
    ///
    /// # Errors
    /// [`ViewError::DTypeMismatch`], [`ViewError::Misaligned`], or [`ViewError::InvalidValue`] for a byte
    /// that is no `bool`.
    pub fn as_ndarray<T: Element>(&self) -> Result<ArrayViewD<'_, T>, ViewError> {
        let (shape, strides) = self.upward::<T>()?;
        let elements: &[T] = cast_slice(&self.storage().as_slice()[self.reached_bytes()])?;
        // SAFETY: the strides are not negative, and from the first element of the slice they reach its last
        // one and no further; `cast_slice` checked alignment and values; the borrow is that of `self`.
        let mut array =
            unsafe { ArrayViewD::from_shape_ptr(shape.strides(strides), elements.as_ptr()) };
        self.for_each_reversed(|dim| array.invert_axis(Axis(dim)));
        Ok(array)
    }

    /// The tensor as an array of the same memory, for writing.
    ///
    /// # Errors
    /// As [`Tensor::as_ndarray`]; [`ViewError::Shared`] or [`ViewError::ReadOnly`] if the memory can't be
    /// written, [`ViewError::Overlapping`] if elements may share memory, as after a broadcast.
    pub fn as_ndarray_mut<T: Element>(&mut self) -> Result<ArrayViewMutD<'_, T>, ViewError> {
        let (shape, strides) = self.upward::<T>()?;
        self.require_distinct_elements()?;
        let range = self.reached_bytes();
        let reversed: Vec<usize> = {
            let mut dims = Vec::new();
            self.for_each_reversed(|dim| dims.push(dim));
            dims
        };
        let elements: &mut [T] = cast_mut_slice(&mut self.storage_mut().get_mut()?[range])?;
        // SAFETY: as in `as_ndarray`; the elements are distinct, nobody else holds the memory, and the
        // borrow of `self` is exclusive.
        let mut array =
            unsafe { ArrayViewMutD::from_shape_ptr(shape.strides(strides), elements.as_mut_ptr()) };
        for dim in reversed {
            array.invert_axis(Axis(dim));
        }
        Ok(array)
    }

    /// Shape and strides of the elements seen from the lowest address, from where no stride is negative.
    fn upward<T: Element>(&self) -> Result<(IxDyn, IxDyn), ViewError> {
        self.require_dtype(T::DTYPE)?;
        // A stride that no step is taken with may be anything, and the array checks them all.
        let strides: Vec<usize> = self
            .shape()
            .iter()
            .zip(self.strides())
            .map(|(&dim, stride)| if dim > 1 { stride.unsigned_abs() } else { 0 })
            .collect();
        Ok((IxDyn(self.shape()), IxDyn(&strides)))
    }

    fn for_each_reversed(&self, mut visit: impl FnMut(usize)) {
        for (dim, (&len, &stride)) in self.shape().iter().zip(self.strides()).enumerate() {
            if len > 1 && stride < 0 {
                visit(dim);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{arr2, s};

    use super::*;
    use crate::DType;

    fn counted() -> Tensor {
        Tensor::from_vec((0_i32..6).collect(), &[2, 3]).unwrap()
    }

    #[test]
    fn every_layout_is_an_array() {
        let tensor = counted();
        assert_eq!(
            tensor.as_ndarray::<i32>().unwrap(),
            arr2(&[[0, 1, 2], [3, 4, 5]]).into_dyn()
        );
        let turned = tensor.flip(1).unwrap().transpose(0, 1).unwrap();
        assert_eq!(
            turned.as_ndarray::<i32>().unwrap(),
            arr2(&[[2, 5], [1, 4], [0, 3]]).into_dyn()
        );
        let repeated = tensor
            .narrow(0, 1, 1)
            .unwrap()
            .broadcast_to(&[2, 3])
            .unwrap();
        assert_eq!(
            repeated.as_ndarray::<i32>().unwrap(),
            arr2(&[[3, 4, 5], [3, 4, 5]]).into_dyn()
        );
        let empty = tensor.narrow(1, 3, 0).unwrap();
        assert_eq!(empty.as_ndarray::<i32>().unwrap().shape(), [2, 0]);
        let scalar = Tensor::from_vec(vec![5_u8], &[]).unwrap();
        assert_eq!(
            scalar
                .as_ndarray::<u8>()
                .unwrap()
                .into_iter()
                .copied()
                .collect::<Vec<_>>(),
            [5]
        );
    }

    #[test]
    fn arrays_become_tensors_without_a_copy() {
        let array = arr2(&[[0_u16, 1, 2], [3, 4, 5]]);
        let address = array.as_ptr().addr() as u64;
        let tensor = Tensor::from_ndarray(array.reversed_axes()).unwrap();
        assert_eq!(
            (tensor.shape(), tensor.strides()),
            (&[3, 2][..], &[1, 3][..])
        );
        assert_eq!(tensor.data_ptr().addr(), address);
        assert_eq!(tensor.to_vec::<u16>().unwrap(), [0, 3, 1, 4, 2, 5]);
        let sliced = arr2(&[[0_u16, 1, 2], [3, 4, 5]]).slice_move(s![..;-1, 1..]);
        let tensor = Tensor::from_ndarray(sliced).unwrap();
        assert_eq!(tensor.to_vec::<u16>().unwrap(), [4, 5, 1, 2]);
        let empty = Array::<f32, _>::zeros((0, 4));
        assert_eq!(Tensor::from_ndarray(empty).unwrap().shape(), [0, 4]);
    }

    #[test]
    fn writing_needs_the_memory_alone_and_each_element_once() {
        let mut view = counted().flip(0).unwrap();
        view.as_ndarray_mut::<i32>().unwrap()[[0, 0]] = 30;
        assert_eq!(view.to_vec::<i32>().unwrap(), [30, 4, 5, 0, 1, 2]);
        let other = view.clone();
        assert!(matches!(
            view.as_ndarray_mut::<i32>(),
            Err(ViewError::Shared { .. })
        ));
        drop(other);
        let mut repeated = view.narrow(0, 0, 1).unwrap().broadcast_to(&[4, 3]).unwrap();
        drop(view);
        assert!(matches!(
            repeated.as_ndarray_mut::<i32>(),
            Err(ViewError::Overlapping { .. })
        ));
        assert!(matches!(
            repeated.as_ndarray::<f32>(),
            Err(ViewError::DTypeMismatch {
                expected: DType::F32,
                ..
            })
        ));
    }
}
