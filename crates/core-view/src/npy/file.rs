//! An array as a view of a file.

use super::{NpyError, NpyHeader};
use crate::{Tensor, TensorStorage, ViewError};

/// An NPY file in memory, mapped or read, whose array is a view of it.
///
/// ```
/// use core_view::TensorStorage;
/// use core_view::npy::NpyFile;
///
/// // Fortran's order is a matter of strides, and needs no copy.
/// let dictionary = "{'descr': '|i1', 'fortran_order': True, 'shape': (2, 3), }\n";
/// let mut file = b"\x93NUMPY\x01\x00".to_vec();
/// file.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
/// file.extend_from_slice(dictionary.as_bytes());
/// file.extend_from_slice(&[1, 4, 2, 5, 3, 6]);
/// let file = NpyFile::from_storage(TensorStorage::from_vec(file))?;
/// assert_eq!(file.tensor()?.to_vec::<i8>()?, [1, 2, 3, 4, 5, 6]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct NpyFile {
    header: NpyHeader,
    data: TensorStorage,
}

impl NpyFile {
    /// Maps a file under a shared lock, as [`TensorStorage::map_file`], and checks its header.
    ///
    /// # Errors
    /// As [`NpyFile::from_storage`]; [`NpyError::View`] if the file can't be mapped.
    #[cfg(feature = "mmap")]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, NpyError> {
        Self::from_storage(TensorStorage::map_file(path)?)
    }

    /// Checks the header of a whole file in memory. Only the header's bytes are read.
    ///
    /// # Errors
    /// As [`NpyHeader::parse`]; [`NpyError::DataLength`].
    pub fn from_storage(storage: TensorStorage) -> Result<Self, NpyError> {
        let bytes = storage.as_slice();
        let header = NpyHeader::parse(bytes)?;
        header.check_file_len(bytes.len() as u64)?;
        // The header was checked against this very storage.
        let data = storage.view(header.data_start as usize, header.len_bytes() as usize)?;
        Ok(Self { header, data })
    }

    /// The header.
    pub fn header(&self) -> &NpyHeader {
        &self.header
    }

    /// The bytes of the elements, in the order of the file.
    pub fn storage(&self) -> &TensorStorage {
        &self.data
    }

    /// The array, as a view of the file.
    ///
    /// # Errors
    /// [`NpyError::BigEndian`]; [`NpyError::View`] for a rank above [`RANK_MAX`](crate::RANK_MAX).
    pub fn tensor(&self) -> Result<Tensor, NpyError> {
        if self.header.big_endian {
            return Err(NpyError::BigEndian);
        }
        let mut shape = self
            .header
            .shape
            .iter()
            .map(|&dim| usize::try_from(dim))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ViewError::SizeOverflow {
                shape: self.header.shape.clone(),
                dtype: self.header.dtype,
            })?;
        if !self.header.fortran_order {
            let tensor = Tensor::from_storage(self.data.clone(), self.header.dtype, &shape)?;
            return Ok(tensor);
        }
        shape.reverse();
        let tensor = Tensor::from_storage(self.data.clone(), self.header.dtype, &shape)?;
        let reversed: Vec<usize> = (0..shape.len()).rev().collect();
        Ok(tensor.permute(&reversed)?)
    }
}
