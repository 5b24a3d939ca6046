//! Another shape over the same elements.

use super::Tensor;
use super::layout::{Layout, RANK_MAX};
use crate::ViewError;

impl Tensor {
    /// The same elements in row-major order under another shape, without a copy.
    ///
    /// # Errors
    /// [`ViewError::NeedsCopy`] exactly when no strides give that shape over the same memory,
    /// [`ViewError::ElementCountMismatch`] or [`ViewError::RankTooHigh`] for a shape that does not fit.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self, ViewError> {
        let mut target = Layout::row_major(shape, self.dtype)?;
        if target.elements() != self.elements() {
            return Err(ViewError::ElementCountMismatch {
                from: self.shape().to_vec(),
                to: shape.to_vec(),
            });
        }
        if !self.layout.is_empty() && !lay_over(&self.layout, &mut target) {
            return Err(ViewError::NeedsCopy {
                operation: "reshape",
                shape: self.shape().to_vec(),
            });
        }
        Ok(Self {
            storage: self.storage.clone(),
            layout: target,
            ..*self
        })
    }

    /// All elements in one dimension, without a copy.
    ///
    /// # Errors
    /// [`ViewError::NeedsCopy`] if they do not lie at equal distances in row-major order.
    pub fn flatten(&self) -> Result<Self, ViewError> {
        self.reshape(&[self.elements()])
    }
}

/// Sets the strides of `target` so that it reaches the elements of `source` in the same order.
///
/// Dimensions that step evenly into each other form a run, from the innermost outwards; the target's
/// dimensions must fill the runs one by one, since a dimension across two runs would step unevenly.
fn lay_over(source: &Layout, target: &mut Layout) -> bool {
    let mut parts = [(0_usize, 0_isize); RANK_MAX];
    let mut left = 0;
    for (&dim, &stride) in source.dims().iter().zip(source.strides()) {
        if dim != 1 {
            parts[left] = (dim, stride);
            left += 1;
        }
    }
    let mut target_dim = target.rank();
    while left > 0 {
        left -= 1;
        let (mut run, step) = parts[left];
        while left > 0 && parts[left - 1].1 == (run as isize).wrapping_mul(step) {
            left -= 1;
            run *= parts[left].0;
        }
        let mut laid = 1;
        while laid < run && target_dim > 0 {
            target_dim -= 1;
            target.strides[target_dim] = (laid as isize).wrapping_mul(step);
            laid *= target.dims[target_dim];
        }
        if laid != run {
            return false;
        }
    }
    // The element counts are equal, so that what is left are dimensions of length 1.
    true
}
