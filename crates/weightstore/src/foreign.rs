//! Model files of other formats, read as the safetensors files that they would be.
//!
//! The header is made when the file is opened; the data are put together when they are read: turned into
//! C order and little-endian, inflated, checked against the archive's checksums. Nothing is unpacked on the
//! way, and nothing in a file is ever run: a pickle is a list of instructions, of which only those
//! are followed that build a `state_dict`.

mod archive;
mod coverage;
mod directory;
mod format;
mod inflate;
mod npz;
mod piece;
mod torch;

use core_view::DType;
use core_view::safetensors::{Header, HeaderBuilder};

use crate::{ByteSource, WeightError};
use archive::Archive;
use piece::{Elements, Loaded, Piece};

pub use format::ModelFormat;

/// A tensor that was found in a file.
struct Found {
    name: String,
    dtype: DType,
    shape: Vec<u64>,
    elements: Elements,
}

/// What a file holds.
struct Content {
    tensors: Vec<Found>,
    /// What else it holds, and is left out.
    skipped_values: u64,
}

/// A model file of another format, which reads as a safetensors file of its tensors.
///
/// Tensors lie in the order that the reference writer gives them: wide types first, then by name. Those
/// of a `state_dict` that is nested are named by their path, joined by dots. Views of shared storage
/// become tensors of their own.
///
/// Reads in order, from several threads a few dozen MiB apart at most, are served with bounded memory; but a
/// tensor that does not lie in C order is in memory whole while it is read. Parts of a zip archive are
/// compared with its checksums as they are read, and what was not read of them when
/// [`version`](ByteSource::version) is asked for the second time.
///
/// ```
/// use weightstore::{ByteSource, ForeignFile, ModelFormat};
///
/// let dictionary = "{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }\n";
/// let mut file = b"\x93NUMPY\x01\x00".to_vec();
/// file.extend_from_slice(&(dictionary.len() as u16).to_le_bytes());
/// file.extend_from_slice(dictionary.as_bytes());
/// file.extend_from_slice(&[1, 0, 2, 0]);
///
/// let file = ForeignFile::open("bias.npy", file)?;
/// assert_eq!(file.format(), ModelFormat::Npy);
/// assert_eq!(file.name(), "bias.safetensors");
/// let mut bytes = vec![0; file.len_bytes()? as usize];
/// file.read_exact_at(0, &mut bytes)?;
/// assert!(bytes.ends_with(&[1, 0, 2, 0]));
/// assert_eq!(file.header().get("bias").map(|tensor| tensor.len_bytes()), Some(4));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ForeignFile<S> {
    name: String,
    format: ModelFormat,
    header: Header,
    /// In the order of the header's tensors; those of no bytes are left out.
    pieces: Vec<Piece>,
    archive: Archive<S>,
    loaded: Loaded,
    skipped_values: u64,
}

impl<S> std::fmt::Debug for ForeignFile<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForeignFile")
            .field("name", &self.name)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl<S: ByteSource> ForeignFile<S> {
    /// Opens a file of that name, whatever its suffix; only its directory is read.
    ///
    /// # Errors
    /// [`WeightError::Foreign`] for a file that is damaged, holds more than tensors can, or has none;
    /// [`WeightError::Source`].
    pub fn open(name: &str, source: S) -> Result<Self, WeightError> {
        let format = ModelFormat::detect(name, &source)?;
        let (archive, mut content) = match format {
            ModelFormat::Npy => npz::open_array(name, source)?,
            ModelFormat::Npz => npz::open(name, Archive::open(name, format, source)?)?,
            ModelFormat::Torch => torch::open(name, Archive::open(name, format, source)?)?,
            ModelFormat::Safetensors | ModelFormat::ShardIndex => {
                return Err(format.refused(name, "it needs no conversion; import it as it is"));
            }
        };
        archive.forget();
        if content.tensors.is_empty() {
            return Err(format.refused(name, "it holds no tensors"));
        }
        let width = |found: &Found| found.dtype.bits();
        content
            .tensors
            .sort_by(|a, b| width(b).cmp(&width(a)).then_with(|| a.name.cmp(&b.name)));
        let header = header_of(name, format, &content.tensors)?;
        let pieces = header
            .tensors()
            .iter()
            .zip(content.tensors)
            .filter(|(info, _)| info.len_bytes() > 0)
            .map(|(info, found)| Piece::new(info, found.elements))
            .collect();
        Ok(Self {
            name: name.to_owned(),
            format,
            header,
            pieces,
            archive,
            loaded: Loaded::default(),
            skipped_values: content.skipped_values,
        })
    }

    /// What the file is.
    pub fn format(&self) -> ModelFormat {
        self.format
    }

    /// The name of the safetensors file that it reads as.
    pub fn name(&self) -> String {
        self.format.safetensors_name(&self.name)
    }

    /// The header of the safetensors file that it reads as.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many values of the file are no tensors, and left out: numbers and texts of a checkpoint.
    pub fn skipped_values(&self) -> u64 {
        self.skipped_values
    }

    /// Fills `target` from an offset in the data section, which it lies in.
    fn read_data(&self, mut offset: u64, mut target: &mut [u8]) -> std::io::Result<()> {
        while !target.is_empty() {
            let after = self.pieces.partition_point(|piece| piece.start <= offset);
            let piece = after
                .checked_sub(1)
                .and_then(|index| self.pieces.get(index));
            let within = piece.and_then(|piece| {
                let at = offset - piece.start;
                let left = piece.len_bytes.checked_sub(at).filter(|left| *left > 0)?;
                Some((piece, at, left))
            });
            let (piece, at, left) = within.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            let len = target
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let (part, rest) = target.split_at_mut(len);
            piece.read(&self.archive, &self.loaded, at, part)?;
            offset += len as u64;
            target = rest;
        }
        Ok(())
    }
}

impl<S: ByteSource> ByteSource for ForeignFile<S> {
    fn len_bytes(&self) -> std::io::Result<u64> {
        self.archive.check_len()?;
        Ok(self.header.data_start() + self.header.data_len())
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> std::io::Result<()> {
        let header = self.header.raw();
        let start = usize::try_from(offset_bytes).unwrap_or(usize::MAX);
        let from_header = header.get(start..).unwrap_or_default();
        let len = from_header.len().min(target.len());
        let (in_header, in_data) = target.split_at_mut(len);
        in_header.copy_from_slice(from_header.get(..len).unwrap_or_default());
        let at = offset_bytes + len as u64;
        self.read_data(at.saturating_sub(self.header.data_start()), in_data)
    }

    fn version(&self) -> std::io::Result<u128> {
        self.archive.check_rest()?;
        self.archive.source().version()
    }
}

fn header_of(name: &str, format: ModelFormat, tensors: &[Found]) -> Result<Header, WeightError> {
    let mut builder = HeaderBuilder::new();
    if let Some(framework) = format.framework() {
        builder = builder.metadata("format", framework);
    }
    for found in tensors {
        builder = builder.tensor(found.name.as_str(), found.dtype, &found.shape);
    }
    builder
        .build()
        .map_err(|error| format.refused(name, error.to_string()))
}

#[cfg(test)]
mod tests;
