//! Tensors as views of a file.

use super::header::{PREFIX_LEN, header_len};
use super::{Header, SafetensorsError, TensorInfo};
use crate::{Tensor, TensorStorage, ViewError};

/// A safetensors file in memory, mapped or read, whose tensors are views of it.
///
/// ```
/// use core_view::safetensors::{HeaderBuilder, SafetensorsFile};
/// use core_view::{DType, TensorStorage};
///
/// let header = HeaderBuilder::new().tensor("t", DType::U16, &[2]).build()?;
/// let file = [header.raw(), &[1, 0, 2, 0]].concat();
/// let file = SafetensorsFile::from_storage(TensorStorage::from_slice(&file)?)?;
/// assert_eq!(file.tensor("t")?.to_vec::<u16>()?, [1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SafetensorsFile {
    header: Header,
    storage: TensorStorage,
}

impl SafetensorsFile {
    /// Maps a file under a shared lock, as [`TensorStorage::map_file`], and checks its header.
    ///
    /// # Errors
    /// As [`SafetensorsFile::from_storage`]; [`SafetensorsError::View`] if the file can't be mapped.
    #[cfg(feature = "mmap")]
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self, SafetensorsError> {
        Self::from_storage(TensorStorage::map_file(path)?)
    }

    /// Checks the header of a whole file in memory. Only the header's bytes are read.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn from_storage(storage: TensorStorage) -> Result<Self, SafetensorsError> {
        let bytes = storage.as_slice();
        let too_short = SafetensorsError::TooShort {
            found_bytes: bytes.len() as u64,
        };
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX_LEN>().ok_or(too_short)?;
        let len = header_len(u64::from_le_bytes(*prefix), rest.len() as u64)?;
        let (json, data) = rest.split_at(len);
        let header = Header::parse(json, data.len() as u64)?;
        Ok(Self { header, storage })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn info(&self, name: &str) -> Result<&TensorInfo, SafetensorsError> {
        self.header
            .get(name)
            .ok_or_else(|| SafetensorsError::NoSuchTensor { name: name.into() })
    }

    /// The bytes of a tensor, as a view of the file; tensors of every rank have one.
    ///
    /// # Errors
    /// [`SafetensorsError::NoSuchTensor`].
    pub fn storage(&self, name: &str) -> Result<TensorStorage, SafetensorsError> {
        self.storage_of(self.info(name)?)
    }

    fn storage_of(&self, info: &TensorInfo) -> Result<TensorStorage, SafetensorsError> {
        // The header was checked against this very storage, so that the sums fit and lie inside it.
        let start = (self.header.data_start() + info.start) as usize;
        Ok(self.storage.view(start, info.len_bytes() as usize)?)
    }

    /// A tensor, as a view of the file. Where its bytes are not aligned for its type, reading elements one by
    /// one or by copy works and a slice of elements is refused.
    ///
    /// # Errors
    /// [`SafetensorsError::NoSuchTensor`], [`SafetensorsError::View`] for a rank above
    /// [`RANK_MAX`](crate::RANK_MAX).
    pub fn tensor(&self, name: &str) -> Result<Tensor, SafetensorsError> {
        let info = self.info(name)?;
        let overflow = |_| ViewError::SizeOverflow {
            shape: info.shape.clone(),
            dtype: info.dtype,
        };
        let shape = info
            .shape
            .iter()
            .map(|&dim| usize::try_from(dim))
            .collect::<Result<Vec<_>, _>>()
            .map_err(overflow)?;
        Ok(Tensor::from_storage(
            self.storage_of(info)?,
            info.dtype,
            &shape,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::safetensors::HeaderBuilder;

    fn model() -> Vec<u8> {
        let header = HeaderBuilder::new()
            .tensor("byte", DType::U8, &[1])
            .tensor("odd", DType::F32, &[2])
            .tensor("deep", DType::U8, &[1; 9])
            .tensor("empty", DType::F64, &[4, 0])
            .build()
            .unwrap();
        let data = [
            &[5][..],
            &1.5_f32.to_le_bytes(),
            &2.5_f32.to_le_bytes(),
            &[6],
        ]
        .concat();
        [header.raw(), &data].concat()
    }

    #[test]
    #[cfg(feature = "mmap")]
    fn tensors_are_views_of_the_mapped_file() {
        use std::io::Write;
        let mut on_disk = tempfile::NamedTempFile::new().unwrap();
        on_disk.write_all(&model()).unwrap();
        let file = SafetensorsFile::open(on_disk.path()).unwrap();
        let odd = file.tensor("odd").unwrap();
        assert_eq!(
            odd.storage().as_ptr(),
            file.storage("odd").unwrap().as_ptr()
        );
        drop(file);
        assert_eq!(odd.to_vec::<f32>().unwrap(), [1.5, 2.5]);
        assert!(matches!(
            odd.as_slice::<f32>(),
            Err(ViewError::Misaligned { .. })
        ));
        assert!(on_disk.as_file().try_lock().is_err());
    }

    #[test]
    fn every_tensor_has_its_bytes() {
        let file = SafetensorsFile::from_storage(TensorStorage::from_vec(model())).unwrap();
        assert_eq!(file.storage("byte").unwrap().as_slice(), [5]);
        assert_eq!(file.storage("deep").unwrap().as_slice(), [6]);
        assert!(matches!(
            file.tensor("deep"),
            Err(SafetensorsError::View(ViewError::RankTooHigh {
                rank: 9,
                ..
            }))
        ));
        assert_eq!(file.tensor("empty").unwrap().shape(), [4, 0]);
        assert!(matches!(
            file.tensor("absent"),
            Err(SafetensorsError::NoSuchTensor { .. })
        ));
    }

    #[test]
    fn every_cut_of_the_file_is_refused() {
        let whole = model();
        for len in 0..whole.len() {
            let cut = TensorStorage::from_vec(whole[..len].to_vec());
            assert!(SafetensorsFile::from_storage(cut).is_err(), "{len}");
        }
    }
}
