//! One tensor's bytes in C order, put together from where they lie.

use std::io;
use std::sync::{Mutex, PoisonError};

use core_view::safetensors::TensorInfo;

use super::archive::Archive;
use crate::ByteSource;

/// How a tensor's elements lie in the content of an entry.
#[derive(Debug, Clone)]
pub(super) struct Elements {
    /// The entry.
    pub(super) entry: usize,
    /// Offset in its content of the first element, in bytes.
    pub(super) offset: u64,
    /// Width of an element in bytes.
    pub(super) width: usize,
    /// Length in bytes of the numbers whose bytes are to be turned round; 1 for none.
    pub(super) turned: usize,
    /// For each dimension, how many elements the next one is away; C order if there is none.
    pub(super) strides: Option<Vec<u64>>,
}

/// A tensor within the data section.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) len_bytes: u64,
    shape: Vec<u64>,
    elements: Elements,
}

/// The bytes of the one tensor that can't be read piece by piece: entry, offset, content.
#[derive(Debug, Default)]
pub(super) struct Loaded(Mutex<Option<(usize, u64, Vec<u8>)>>);

/// The strides of C order.
pub(super) fn c_strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1; shape.len()];
    let mut step = 1_u64;
    for (stride, dim) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.saturating_mul(*dim);
    }
    strides
}

/// Whether elements with these strides lie as those of C order do.
pub(super) fn is_c_order(shape: &[u64], strides: &[u64]) -> bool {
    let expected = c_strides(shape);
    let mut dims = shape.iter().zip(strides).zip(&expected);
    shape.contains(&0) || dims.all(|((dim, stride), expected)| *dim == 1 || stride == expected)
}

/// From the first element to behind the last one, in elements; `None` if it does not fit.
pub(super) fn span(shape: &[u64], strides: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut last = 0_u64;
    for (dim, stride) in shape.iter().zip(strides) {
        last = last.checked_add((dim - 1).checked_mul(*stride)?)?;
    }
    last.checked_add(1)
}

impl Piece {
    pub(super) fn new(info: &TensorInfo, elements: Elements) -> Self {
        Self {
            start: info.start,
            len_bytes: info.len_bytes(),
            shape: info.shape.clone(),
            elements,
        }
    }

    /// Fills `target` from an offset in the tensor's bytes, which it lies in.
    pub(super) fn read<S: ByteSource>(
        &self,
        archive: &Archive<S>,
        loaded: &Loaded,
        at: u64,
        target: &mut [u8],
    ) -> io::Result<()> {
        let width = self.elements.width as u64;
        let whole_elements =
            at.is_multiple_of(width) && target.len().is_multiple_of(self.elements.width);
        let plain = self.elements.strides.is_none() && self.elements.turned == 1;
        if whole_elements || plain {
            return self.read_elements(archive, loaded, at, target);
        }
        let start = at - at % width;
        let end = (at + target.len() as u64).next_multiple_of(width);
        let mut elements = vec![0; (end - start) as usize];
        self.read_elements(archive, loaded, start, &mut elements)?;
        let within = elements.get((at - start) as usize..).unwrap_or_default();
        target.copy_from_slice(within.get(..target.len()).unwrap_or_default());
        Ok(())
    }

    fn read_elements<S: ByteSource>(
        &self,
        archive: &Archive<S>,
        loaded: &Loaded,
        at: u64,
        target: &mut [u8],
    ) -> io::Result<()> {
        match &self.elements.strides {
            None => archive.read(self.elements.entry, self.elements.offset + at, target)?,
            Some(strides) => self.gather(archive, loaded, strides, at, target)?,
        }
        if self.elements.turned > 1 {
            target
                .chunks_exact_mut(self.elements.turned)
                .for_each(<[u8]>::reverse);
        }
        Ok(())
    }

    /// Reads elements that do not lie in C order, all of which are in memory then.
    fn gather<S: ByteSource>(
        &self,
        archive: &Archive<S>,
        loaded: &Loaded,
        strides: &[u64],
        at: u64,
        target: &mut [u8],
    ) -> io::Result<()> {
        let width = self.elements.width;
        let place = (self.elements.entry, self.elements.offset);
        let span = span(&self.shape, strides).and_then(|span| span.checked_mul(width as u64));
        let span = span.and_then(|span| usize::try_from(span).ok());
        let span = span.ok_or(io::ErrorKind::OutOfMemory)?;
        let mut slot = loaded.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = match slot.take() {
            Some(held) if (held.0, held.1) == place && held.2.len() == span => held,
            other => {
                drop(other);
                let mut bytes = Vec::new();
                bytes
                    .try_reserve_exact(span)
                    .map_err(|_| io::ErrorKind::OutOfMemory)?;
                bytes.resize(span, 0);
                archive.read(place.0, place.1, &mut bytes)?;
                (place.0, place.1, bytes)
            }
        };
        let copied = copy_strided(
            &self.shape,
            strides,
            width,
            at / width as u64,
            &held.2,
            target,
        );
        *slot = Some(held);
        copied.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// Copies elements from the `first`-th in C order on; `None` if the source is too short.
fn copy_strided(
    shape: &[u64],
    strides: &[u64],
    width: usize,
    first: u64,
    source: &[u8],
    target: &mut [u8],
) -> Option<()> {
    let mut index = vec![0; shape.len()];
    let mut rest = first;
    let mut at = 0_u64;
    for ((digit, dim), stride) in index.iter_mut().zip(shape).zip(strides).rev() {
        *digit = rest % dim;
        rest /= dim;
        at += *digit * stride;
    }
    for element in target.chunks_exact_mut(width) {
        let start = at as usize * width;
        element.copy_from_slice(source.get(start..start + width)?);
        for ((digit, dim), stride) in index.iter_mut().zip(shape).zip(strides).rev() {
            *digit += 1;
            at += stride;
            if *digit < *dim {
                break;
            }
            at -= *dim * stride;
            *digit = 0;
        }
    }
    Some(())
}
