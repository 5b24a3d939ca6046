//! Shape and strides, stored inline.

use crate::{DType, ViewError};

/// The highest rank of a tensor.
pub const RANK_MAX: usize = 8;

/// Lengths and strides of up to [`RANK_MAX`] dimensions, outermost first; strides count elements.
///
/// Entries past the rank are zero.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(super) dims: [usize; RANK_MAX],
    pub(super) strides: [isize; RANK_MAX],
    pub(super) rank: u8,
}

impl Layout {
    /// A layout without dimensions: that of a scalar.
    pub(super) const SCALAR: Self = Self {
        dims: [0; RANK_MAX],
        strides: [0; RANK_MAX],
        rank: 0,
    };

    /// Checks the rank; the strides are still zero.
    fn with_dims(dims: &[usize]) -> Result<Self, ViewError> {
        let mut layout = Self {
            rank: dims.len().min(RANK_MAX) as u8,
            ..Self::SCALAR
        };
        layout
            .dims
            .get_mut(..dims.len())
            .ok_or(ViewError::RankTooHigh {
                rank: dims.len(),
                rank_max: RANK_MAX,
            })?
            .copy_from_slice(dims);
        Ok(layout)
    }

    /// Row-major order without gaps. The number of elements fits an `isize`.
    pub(super) fn row_major(dims: &[usize], dtype: DType) -> Result<Self, ViewError> {
        let mut layout = Self::with_dims(dims)?;
        layout.checked_elements(dtype)?;
        layout.set_row_major_strides();
        Ok(layout)
    }

    /// Dimensions with strides of the caller's choice. The number of elements fits an `isize`.
    pub(super) fn strided(
        dims: &[usize],
        strides: &[isize],
        dtype: DType,
    ) -> Result<Self, ViewError> {
        if dims.len() != strides.len() {
            return Err(ViewError::StrideCountMismatch {
                strides: strides.len(),
                rank: dims.len(),
            });
        }
        let mut layout = Self::with_dims(dims)?;
        layout.checked_elements(dtype)?;
        layout.strides[..dims.len()].copy_from_slice(strides);
        Ok(layout)
    }

    fn set_row_major_strides(&mut self) {
        let mut stride = 1_usize;
        for dim in (0..self.rank()).rev() {
            // Wraps only beside a zero, where no element is ever reached.
            self.strides[dim] = stride as isize;
            stride = stride.wrapping_mul(self.dims[dim].max(1));
        }
    }

    /// A copy. As a whole it would be copied by a call to `memcpy`, which its size just demands; the
    /// arrays alone are copied in place, and the masked rank keeps the compiler from joining them.
    #[inline(always)]
    pub(super) fn duplicate(&self) -> Self {
        Self {
            dims: self.dims,
            strides: self.strides,
            rank: self.rank % 16,
        }
    }

    #[inline]
    pub(super) fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    #[inline]
    pub(super) fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    #[inline]
    pub(super) fn strides(&self) -> &[isize] {
        &self.strides[..self.rank()]
    }

    /// Number of elements; every layout in use was checked not to overflow.
    pub(super) fn elements(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        self.dims().iter().product()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dims().contains(&0)
    }

    /// Number of elements, checked to fit an `isize`.
    pub(super) fn checked_elements(&self, dtype: DType) -> Result<usize, ViewError> {
        if self.is_empty() {
            return Ok(0);
        }
        self.dims()
            .iter()
            .try_fold(1_usize, |product, &dim| product.checked_mul(dim))
            .filter(|&elements| isize::try_from(elements).is_ok())
            .ok_or_else(|| self.overflow(dtype))
    }

    /// Bytes that the elements take without gaps.
    pub(super) fn len_bytes(&self, dtype: DType) -> Result<usize, ViewError> {
        let elements = self.elements();
        dtype.len_bytes(elements).ok_or_else(|| {
            if dtype.size_bytes().is_none() {
                ViewError::PartialByte {
                    dtype,
                    elements,
                    offset_elements: 0,
                }
            } else {
                self.overflow(dtype)
            }
        })
    }

    fn overflow(&self, dtype: DType) -> ViewError {
        ViewError::SizeOverflow {
            shape: self.dims().iter().map(|&dim| dim as u64).collect(),
            dtype,
        }
    }

    /// Lowest and highest distance of an element from the first; `None` if there is no element or if a
    /// distance overflows.
    pub(super) fn reach(&self) -> Option<(isize, isize)> {
        let (mut low, mut high) = (0_isize, 0_isize);
        for (&dim, &stride) in self.dims().iter().zip(self.strides()) {
            let last = isize::try_from(dim.checked_sub(1)?).ok()?;
            let distance = last.checked_mul(stride)?;
            if distance < 0 {
                low = low.checked_add(distance)?;
            } else {
                high = high.checked_add(distance)?;
            }
        }
        Some((low, high))
    }

    /// Whether the elements lie one after the other in row-major order.
    pub(super) fn is_contiguous(&self) -> bool {
        let mut expected = 1_usize;
        for (&dim, &stride) in self.dims().iter().zip(self.strides()).rev() {
            if dim == 0 {
                return true;
            }
            if dim != 1 {
                if stride != expected as isize {
                    return self.is_empty();
                }
                expected *= dim;
            }
        }
        true
    }

    /// Whether no two elements can share a place: each stride steps over all that smaller ones reach.
    ///
    /// Exotic layouts that interleave without sharing are not recognised.
    pub(super) fn is_injective(&self) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut steps = [(0_usize, 0_usize); RANK_MAX];
        let mut count = 0;
        for (&dim, &stride) in self.dims().iter().zip(self.strides()) {
            if dim > 1 {
                steps[count] = (stride.unsigned_abs(), dim);
                count += 1;
            }
        }
        steps[..count].sort_unstable();
        let mut reached = 0;
        for &(stride, dim) in &steps[..count] {
            if stride <= reached {
                return false;
            }
            reached += (dim - 1) * stride;
        }
        true
    }

    /// Distance of the element at `index` from the first; the index must lie inside the shape.
    pub(super) fn distance(&self, index: &[usize]) -> isize {
        index
            .iter()
            .zip(self.strides())
            .map(|(&position, &stride)| position as isize * stride)
            .sum()
    }
}
