//! Copies between layouts.

use super::Tensor;
use super::layout::{Layout, RANK_MAX};
use crate::storage::zeroed_buffer;
use crate::{TensorStorage, ViewError};

impl Tensor {
    /// This tensor if its elements lie one after the other in row-major order, else a copy that does.
    ///
    /// # Errors
    /// [`ViewError::Storage`] if the memory for a copy can't be had; for types narrower than a byte,
    /// [`ViewError::PartialByte`] if the elements do not fill whole bytes.
    pub fn contiguous(&self) -> Result<Self, ViewError> {
        if self.is_contiguous() {
            return Ok(self.clone());
        }
        self.deep_clone()
    }

    /// A copy of the elements, in row-major order, in memory of its own.
    ///
    /// # Errors
    /// As [`Tensor::contiguous`].
    pub fn deep_clone(&self) -> Result<Self, ViewError> {
        let layout = Layout::row_major(self.shape(), self.dtype)?;
        let mut buffer = zeroed_buffer(layout.len_bytes(self.dtype)?)?;
        Walk::new(&self.layout, &layout).copy(
            self.dtype.bits(),
            (self.storage.as_slice(), self.offset),
            (&mut buffer, 0),
        );
        Ok(Self {
            storage: TensorStorage::from(buffer),
            layout,
            offset: 0,
            dtype: self.dtype,
        })
    }

    /// Copies the elements of `source` into this tensor's memory.
    ///
    /// # Errors
    /// [`ViewError::ShapeMismatch`] or [`ViewError::DTypeMismatch`] if the two differ,
    /// [`ViewError::Shared`] or [`ViewError::ReadOnly`] if this memory can't be written,
    /// [`ViewError::Overlapping`] if elements of this tensor may share memory, as after a broadcast.
    pub fn copy_(&mut self, source: &Self) -> Result<(), ViewError> {
        self.require_dtype(source.dtype)?;
        if self.shape() != source.shape() {
            return Err(ViewError::ShapeMismatch {
                expected: self.shape().to_vec(),
                found: source.shape().to_vec(),
            });
        }
        self.require_distinct_elements()?;
        let (layout, offset) = (self.layout, self.offset);
        let target = self.storage.get_mut()?;
        Walk::new(&source.layout, &layout).copy(
            source.dtype.bits(),
            (source.storage.as_slice(), source.offset),
            (target, offset),
        );
        Ok(())
    }
}

/// Two layouts of one shape, walked together with as few dimensions as possible.
struct Walk {
    dims: [usize; RANK_MAX],
    source: [isize; RANK_MAX],
    target: [isize; RANK_MAX],
    rank: usize,
    is_empty: bool,
}

impl Walk {
    fn new(source: &Layout, target: &Layout) -> Self {
        let mut walk = Self {
            dims: [1; RANK_MAX],
            source: [0; RANK_MAX],
            target: [0; RANK_MAX],
            rank: 0,
            is_empty: source.is_empty(),
        };
        for dim in (0..source.rank()).filter(|&dim| source.dims[dim] != 1) {
            walk.push(source.dims[dim], source.strides[dim], target.strides[dim]);
        }
        walk
    }

    /// Adds a dimension further in, merged with the one before where both step evenly into it.
    fn push(&mut self, len: usize, source: isize, target: isize) {
        let whole = |stride: isize| stride.wrapping_mul(len as isize);
        let merges = self.rank > 0
            && self.source[self.rank - 1] == whole(source)
            && self.target[self.rank - 1] == whole(target);
        let at = if merges { self.rank - 1 } else { self.rank };
        self.dims[at] = if merges { self.dims[at] * len } else { len };
        self.source[at] = source;
        self.target[at] = target;
        self.rank = at + 1;
    }

    /// Copies elements of `bits` bits from one memory to the other, each with its first element's index.
    fn copy(&self, bits: usize, source: (&[u8], usize), target: (&mut [u8], usize)) {
        if self.is_empty {
            return;
        }
        let (source_bytes, source_start) = source;
        let (target_bytes, target_start) = target;
        let mut index = [0; RANK_MAX];
        let (mut from, mut to) = (source_start, target_start);
        loop {
            self.copy_row(bits, (source_bytes, from), (target_bytes, to));
            let Some(dim) = self.next_row(&mut index) else {
                return;
            };
            // `next_row` set the dimensions inside `dim` back to their start.
            from = from.wrapping_add_signed(self.source[dim]);
            to = to.wrapping_add_signed(self.target[dim]);
            for inner in dim + 1..self.rank.saturating_sub(1) {
                let back = -(self.dims[inner] as isize - 1);
                from = from.wrapping_add_signed(back * self.source[inner]);
                to = to.wrapping_add_signed(back * self.target[inner]);
            }
        }
    }

    /// Steps to the next row and returns the dimension that was incremented.
    fn next_row(&self, index: &mut [usize; RANK_MAX]) -> Option<usize> {
        for dim in (0..self.rank.saturating_sub(1)).rev() {
            index[dim] += 1;
            if index[dim] < self.dims[dim] {
                return Some(dim);
            }
            index[dim] = 0;
        }
        None
    }

    /// Copies the innermost dimension.
    fn copy_row(&self, bits: usize, source: (&[u8], usize), target: (&mut [u8], usize)) {
        let inner = self.rank.saturating_sub(1);
        let row = Row {
            len: self.dims[inner],
            source_step: self.source[inner],
            target_step: self.target[inner],
        };
        match bits {
            8 => row.copy::<1>(source, target),
            16 => row.copy::<2>(source, target),
            32 => row.copy::<4>(source, target),
            64 => row.copy::<8>(source, target),
            _ => row.copy_bits(bits, source, target),
        }
    }
}

/// Elements at equal distances in two memories.
struct Row {
    len: usize,
    source_step: isize,
    target_step: isize,
}

impl Row {
    fn copy<const N: usize>(&self, source: (&[u8], usize), target: (&mut [u8], usize)) {
        let ((source, mut from), (target, mut to)) = (source, target);
        if self.len == 1 || (self.source_step == 1 && self.target_step == 1) {
            let len = self.len * N;
            target[to * N..][..len].copy_from_slice(&source[from * N..][..len]);
            return;
        }
        for _ in 0..self.len {
            target[to * N..][..N].copy_from_slice(&source[from * N..][..N]);
            from = from.wrapping_add_signed(self.source_step);
            to = to.wrapping_add_signed(self.target_step);
        }
    }

    fn copy_bits(&self, bits: usize, source: (&[u8], usize), target: (&mut [u8], usize)) {
        let ((source, mut from), (target, mut to)) = (source, target);
        for _ in 0..self.len {
            set_bits(target, to, bits, get_bits(source, from, bits));
            from = from.wrapping_add_signed(self.source_step);
            to = to.wrapping_add_signed(self.target_step);
        }
    }
}

/// Reads element `index` of `bits` bits, packed with the least significant bits first.
pub(super) fn get_bits(bytes: &[u8], index: usize, bits: usize) -> u64 {
    let mut value = 0;
    for bit in 0..bits {
        // The product fits, since it is less than 8 times the length of memory that exists.
        let at = index as u128 * bits as u128 + bit as u128;
        let set = bytes[(at / 8) as usize] >> (at % 8) & 1;
        value |= u64::from(set) << bit;
    }
    value
}

fn set_bits(bytes: &mut [u8], index: usize, bits: usize, value: u64) {
    for bit in 0..bits {
        let at = index as u128 * bits as u128 + bit as u128;
        let byte = &mut bytes[(at / 8) as usize];
        let mask = 1 << (at % 8);
        if value >> bit & 1 == 1 {
            *byte |= mask;
        } else {
            *byte &= !mask;
        }
    }
}
