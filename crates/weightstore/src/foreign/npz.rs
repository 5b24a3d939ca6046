//! Arrays of numpy's: one in a file, or several in a zip archive.

use core_view::npy::NpyHeader;

use super::archive::Archive;
use super::directory::Entry;
use super::format::{ModelFormat, stem};
use super::piece::Elements;
use super::{Content, Found};
use crate::{ByteSource, WeightError};

/// Opens a single array, which is named after its file.
pub(super) fn open_array<S: ByteSource>(
    name: &str,
    source: S,
) -> Result<(Archive<S>, Content), WeightError> {
    let archive = Archive::of_file(name, ModelFormat::Npy, source)?;
    let mut content = arrays(name, ModelFormat::Npy, &archive)?;
    for found in &mut content.tensors {
        found.name = stem(name).to_owned();
    }
    Ok((archive, content))
}

/// Opens an archive of arrays, which are named after their entries.
pub(super) fn open<S: ByteSource>(
    name: &str,
    archive: Archive<S>,
) -> Result<(Archive<S>, Content), WeightError> {
    let content = arrays(name, ModelFormat::Npz, &archive)?;
    Ok((archive, content))
}

fn arrays<S: ByteSource>(
    name: &str,
    format: ModelFormat,
    archive: &Archive<S>,
) -> Result<Content, WeightError> {
    let mut tensors = Vec::with_capacity(archive.entries().len());
    for (index, entry) in archive.entries().iter().enumerate() {
        let mut start = vec![0; entry.len_bytes.min(NpyHeader::START_LEN_MAX) as usize];
        archive
            .read(index, 0, &mut start)
            .map_err(|error| format.failed(name, error))?;
        let refused = |error| format.refused(name, format!("{:?}: {error}", entry.name));
        let header = NpyHeader::parse(&start).map_err(refused)?;
        header.check_file_len(entry.len_bytes).map_err(refused)?;
        tensors.push(found(index, entry, header));
    }
    Ok(Content {
        tensors,
        skipped_values: 0,
    })
}

fn found(index: usize, entry: &Entry, header: NpyHeader) -> Found {
    let width = header.dtype.bits() / 8;
    let strides = (header.fortran_order && header.shape.len() > 1).then(|| {
        let mut step = 1_u64;
        let strides = header.shape.iter().map(|dim| {
            let stride = step;
            step = step.saturating_mul(*dim);
            stride
        });
        strides.collect()
    });
    Found {
        name: entry
            .name
            .strip_suffix(".npy")
            .unwrap_or(&entry.name)
            .to_owned(),
        dtype: header.dtype,
        elements: Elements {
            entry: index,
            offset: header.data_start,
            width,
            // Complex numbers are two of half their width.
            turned: match header.big_endian {
                true => header.dtype.alignment_bytes(),
                false => 1,
            },
            strides,
        },
        shape: header.shape,
    }
}
