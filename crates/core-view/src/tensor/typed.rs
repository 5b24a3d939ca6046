//! Access to a tensor's elements.

use std::ops::Range;

use super::Tensor;
use super::copy::get_bits;
use crate::element::{bytes_of, cast_mut_slice, cast_slice, read_element};
use crate::{DType, Element, ViewError};

impl Tensor {
    pub(crate) fn require_dtype(&self, expected: DType) -> Result<(), ViewError> {
        if self.dtype == expected {
            return Ok(());
        }
        Err(ViewError::DTypeMismatch {
            expected,
            found: self.dtype,
        })
    }

    pub(crate) fn require_distinct_elements(&self) -> Result<(), ViewError> {
        if self.layout.is_injective() {
            return Ok(());
        }
        Err(ViewError::Overlapping {
            shape: self.shape().to_vec(),
        })
    }

    /// The bytes of a contiguous tensor in its storage.
    fn byte_range(&self) -> Result<Range<usize>, ViewError> {
        if !self.is_contiguous() {
            return Err(ViewError::NeedsCopy {
                operation: "a view as one slice",
                shape: self.shape().to_vec(),
            });
        }
        let elements = self.elements();
        if elements == 0 {
            return Ok(0..0);
        }
        let range = |offset: usize| {
            let start = self.dtype.len_bytes(offset)?;
            let len = self.dtype.len_bytes(elements)?;
            Some(start..start.checked_add(len)?)
        };
        range(self.offset).ok_or(ViewError::PartialByte {
            dtype: self.dtype,
            elements,
            offset_elements: self.offset,
        })
    }

    /// The bytes of the elements in row-major order.
    ///
    /// # Errors
    /// [`ViewError::NeedsCopy`] if the tensor is not contiguous; for types narrower than a byte,
    /// [`ViewError::PartialByte`] if it does not start and end at a byte.
    pub fn as_bytes(&self) -> Result<&[u8], ViewError> {
        Ok(&self.storage.as_slice()[self.byte_range()?])
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    /// [`ViewError::DTypeMismatch`], [`ViewError::NeedsCopy`] if the tensor is not contiguous,
    /// [`ViewError::Misaligned`], or [`ViewError::InvalidValue`] for a byte that is no `bool`.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], ViewError> {
        self.require_dtype(T::DTYPE)?;
        cast_slice(self.as_bytes()?)
    }

    /// The elements in row-major order, for writing.
    ///
    /// # Errors
    /// As [`Tensor::as_slice`]; [`ViewError::Shared`] or [`ViewError::ReadOnly`] if the memory can't be
    /// written.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T], ViewError> {
        self.require_dtype(T::DTYPE)?;
        let range = self.byte_range()?;
        cast_mut_slice(&mut self.storage.get_mut()?[range])
    }

    /// A copy of the elements in row-major order, whatever the strides and the alignment.
    ///
    /// # Errors
    /// [`ViewError::DTypeMismatch`], [`ViewError::InvalidValue`], or [`ViewError::Storage`] if memory
    /// can't be had.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, ViewError> {
        self.require_dtype(T::DTYPE)?;
        let contiguous = self.contiguous()?;
        match contiguous.as_slice() {
            Ok(elements) => Ok(elements.to_vec()),
            Err(ViewError::Misaligned { .. }) => contiguous
                .as_bytes()?
                .chunks_exact(size_of::<T>())
                .map(read_element)
                .collect(),
            Err(error) => Err(error),
        }
    }

    /// Index in the storage of the element at `index`.
    fn position(&self, index: &[usize]) -> Result<usize, ViewError> {
        if index.len() != self.rank() {
            return Err(ViewError::IndexCountMismatch {
                indices: index.len(),
                rank: self.rank(),
            });
        }
        for (dim, (&position, &len)) in index.iter().zip(self.shape()).enumerate() {
            if position >= len {
                return Err(ViewError::RangeOutOfBounds {
                    dim,
                    start: position,
                    end: position.saturating_add(1),
                    len,
                });
            }
        }
        Ok(self.offset.wrapping_add_signed(self.layout.distance(index)))
    }

    /// The element at `index`, one number for each dimension.
    ///
    /// # Errors
    /// [`ViewError::DTypeMismatch`], [`ViewError::IndexCountMismatch`],
    /// [`ViewError::RangeOutOfBounds`] or [`ViewError::InvalidValue`].
    pub fn get<T: Element>(&self, index: &[usize]) -> Result<T, ViewError> {
        self.require_dtype(T::DTYPE)?;
        let start = self.position(index)? * size_of::<T>();
        read_element(&self.storage.as_slice()[start..start + size_of::<T>()])
    }

    /// The bits of the element at `index`, of any type, in the low bits of the result.
    ///
    /// # Errors
    /// [`ViewError::IndexCountMismatch`] or [`ViewError::RangeOutOfBounds`].
    pub fn get_bits(&self, index: &[usize]) -> Result<u64, ViewError> {
        let position = self.position(index)?;
        Ok(get_bits(
            self.storage.as_slice(),
            position,
            self.dtype.bits(),
        ))
    }

    /// Writes the element at `index`.
    ///
    /// # Errors
    /// As [`Tensor::get`]; [`ViewError::Shared`] or [`ViewError::ReadOnly`] if the memory can't be
    /// written, [`ViewError::Overlapping`] if elements may share memory, as after a broadcast.
    pub fn set<T: Element>(&mut self, index: &[usize], value: T) -> Result<(), ViewError> {
        self.require_dtype(T::DTYPE)?;
        self.require_distinct_elements()?;
        let start = self.position(index)? * size_of::<T>();
        let target = &mut self.storage.get_mut()?[start..start + size_of::<T>()];
        target.copy_from_slice(bytes_of(std::slice::from_ref(&value)));
        Ok(())
    }
}
