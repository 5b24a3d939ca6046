//! Views: other shapes and strides over the same memory, in O(1) and without allocation.

use std::ops::{Bound, RangeBounds};

use super::Tensor;
use super::layout::{Layout, RANK_MAX};
use crate::ViewError;

impl Tensor {
    #[inline]
    fn require_dim(&self, dim: usize) -> Result<(), ViewError> {
        if dim < self.rank() {
            return Ok(());
        }
        Err(ViewError::NoSuchDimension {
            dim,
            rank: self.rank(),
        })
    }

    /// A clone whose dimension `dim` has another length and stride and starts at `first`.
    ///
    /// Moving a tensor costs as much as all else here. Out of line, and with nothing but the tensor as its
    /// result, the clone is changed in the very place where the caller wants it.
    #[inline(never)]
    fn with_dim(&self, dim: usize, len: usize, stride: isize, first: usize) -> Self {
        // Of a tensor without elements the place of the first one is meaningless, and wrapping is harmless.
        let distance = self.layout.strides[dim % RANK_MAX].wrapping_mul(first as isize);
        let mut view = self.clone();
        view.layout.dims[dim % RANK_MAX] = len;
        view.layout.strides[dim % RANK_MAX] = stride;
        view.offset = self.offset.wrapping_add_signed(distance);
        view
    }

    /// A clone with two dimensions swapped; out of line as [`Tensor::with_dim`].
    #[inline(never)]
    fn with_swapped(&self, dim: usize, other: usize) -> Self {
        let (dim, other) = (dim % RANK_MAX, other % RANK_MAX);
        let lengths = (self.layout.dims[dim], self.layout.dims[other]);
        let strides = (self.layout.strides[dim], self.layout.strides[other]);
        let mut view = self.clone();
        view.layout.dims[dim] = lengths.1;
        view.layout.dims[other] = lengths.0;
        view.layout.strides[dim] = strides.1;
        view.layout.strides[other] = strides.0;
        view
    }

    /// `len` elements of a dimension from `start` on.
    ///
    /// # Errors
    /// [`ViewError::NoSuchDimension`] or [`ViewError::RangeOutOfBounds`].
    #[inline]
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Self, ViewError> {
        self.require_dim(dim)?;
        let dim_len = self.layout.dims[dim];
        if start > dim_len || len > dim_len - start {
            return Err(ViewError::RangeOutOfBounds {
                dim,
                start,
                end: start.saturating_add(len),
                len: dim_len,
            });
        }
        let stride = self.layout.strides[dim];
        Ok(self.with_dim(dim, len, stride, start))
    }

    /// Every `step`-th element of a range of a dimension; a negative step goes from the range's last
    /// element backwards.
    ///
    /// ```
    /// use core_view::Tensor;
    ///
    /// let tensor = Tensor::from_vec(vec![0_u8, 1, 2, 3, 4, 5, 6], &[7])?;
    /// assert_eq!(tensor.slice(0, 1.., 2)?.to_vec::<u8>()?, [1, 3, 5]);
    /// assert_eq!(tensor.slice(0, 1..6, -2)?.to_vec::<u8>()?, [5, 3, 1]);
    /// # Ok::<(), core_view::ViewError>(())
    /// ```
    ///
    /// # Errors
    /// [`ViewError::NoSuchDimension`], [`ViewError::RangeOutOfBounds`] or [`ViewError::ZeroStep`].
    pub fn slice(
        &self,
        dim: usize,
        range: impl RangeBounds<usize>,
        step: isize,
    ) -> Result<Self, ViewError> {
        self.require_dim(dim)?;
        if step == 0 {
            return Err(ViewError::ZeroStep);
        }
        let dim_len = self.layout.dims[dim];
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => dim_len,
        };
        if start > end || end > dim_len {
            return Err(ViewError::RangeOutOfBounds {
                dim,
                start,
                end,
                len: dim_len,
            });
        }
        let len = (end - start).div_ceil(step.unsigned_abs());
        let first = match step > 0 {
            true => start,
            false => end.saturating_sub(1),
        };
        // A step that overflows is larger than the dimension, so that at most one element is left.
        let stride = self.layout.strides[dim].wrapping_mul(step);
        Ok(self.with_dim(dim, len, stride, first))
    }

    /// A dimension in reverse order.
    ///
    /// # Errors
    /// [`ViewError::NoSuchDimension`].
    pub fn flip(&self, dim: usize) -> Result<Self, ViewError> {
        self.slice(dim, .., -1)
    }

    /// The part at one index of a dimension, without that dimension.
    ///
    /// # Errors
    /// [`ViewError::NoSuchDimension`] or [`ViewError::RangeOutOfBounds`].
    pub fn select(&self, dim: usize, index: usize) -> Result<Self, ViewError> {
        let mut view = self.narrow(dim, index, 1)?;
        view.remove_dim(dim);
        Ok(view)
    }

    fn remove_dim(&mut self, dim: usize) {
        let rank = self.rank();
        self.layout.dims.copy_within(dim + 1..rank, dim);
        self.layout.strides.copy_within(dim + 1..rank, dim);
        self.layout.dims[rank - 1] = 0;
        self.layout.strides[rank - 1] = 0;
        self.layout.rank -= 1;
    }

    /// Without a dimension of length 1.
    ///
    /// # Errors
    /// [`ViewError::NoSuchDimension`] or [`ViewError::NotSqueezable`].
    pub fn squeeze(&self, dim: usize) -> Result<Self, ViewError> {
        self.require_dim(dim)?;
        let len = self.layout.dims[dim];
        if len != 1 {
            return Err(ViewError::NotSqueezable { dim, len });
        }
        let mut view = self.clone();
        view.remove_dim(dim);
        Ok(view)
    }

    /// With a new dimension of length 1 before dimension `dim`, or last if `dim` is the rank.
    ///
    /// # Errors
    /// [`ViewError::NoSuchDimension`] or [`ViewError::RankTooHigh`].
    pub fn unsqueeze(&self, dim: usize) -> Result<Self, ViewError> {
        let rank = self.rank();
        if dim > rank {
            return Err(ViewError::NoSuchDimension { dim, rank });
        }
        if rank == RANK_MAX {
            return Err(ViewError::RankTooHigh {
                rank: rank + 1,
                rank_max: RANK_MAX,
            });
        }
        let mut view = self.clone();
        view.layout.dims.copy_within(dim..rank, dim + 1);
        view.layout.strides.copy_within(dim..rank, dim + 1);
        view.layout.dims[dim] = 1;
        view.layout.strides[dim] = 1;
        view.layout.rank += 1;
        Ok(view)
    }

    /// With two dimensions swapped.
    ///
    /// # Errors
    /// [`ViewError::NoSuchDimension`].
    #[inline]
    pub fn transpose(&self, dim: usize, other: usize) -> Result<Self, ViewError> {
        self.require_dim(dim)?;
        self.require_dim(other)?;
        Ok(self.with_swapped(dim, other))
    }

    /// With the dimensions in another order: dimension `i` is the former `dims[i]`.
    ///
    /// # Errors
    /// [`ViewError::NotAPermutation`] if `dims` does not name each dimension once.
    pub fn permute(&self, dims: &[usize]) -> Result<Self, ViewError> {
        let rank = self.rank();
        let mut seen = [false; RANK_MAX];
        let named_once = dims.len() == rank
            && dims
                .iter()
                .all(|&dim| dim < rank && !std::mem::replace(&mut seen[dim], true));
        if !named_once {
            return Err(ViewError::NotAPermutation {
                dims: dims.to_vec(),
                rank,
            });
        }
        let mut view = self.clone();
        for (target, &source) in dims.iter().enumerate() {
            view.layout.dims[target] = self.layout.dims[source];
            view.layout.strides[target] = self.layout.strides[source];
        }
        Ok(view)
    }

    /// Repeated along new leading dimensions and dimensions of length 1, without a copy.
    ///
    /// The repeated elements are the same memory, so that the result can't be written to.
    ///
    /// # Errors
    /// [`ViewError::NotBroadcastable`] if a length is neither equal nor 1, [`ViewError::RankTooHigh`],
    /// [`ViewError::SizeOverflow`] if the number of elements overflows.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Self, ViewError> {
        let mut layout = Layout::row_major(shape, self.dtype)?;
        let refuse = || ViewError::NotBroadcastable {
            from: self.shape().to_vec(),
            to: shape.to_vec(),
        };
        let added = shape.len().checked_sub(self.rank()).ok_or_else(refuse)?;
        layout.strides = [0; RANK_MAX];
        for dim in 0..self.rank() {
            let (from, to) = (self.layout.dims[dim], shape[added + dim]);
            if from == to {
                layout.strides[added + dim] = self.layout.strides[dim];
            } else if from != 1 {
                return Err(refuse());
            }
        }
        Ok(Self {
            storage: self.storage.clone(),
            layout,
            ..*self
        })
    }
}
