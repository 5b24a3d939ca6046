//! A file of a simulated volume.

use std::io;

use core_view::BufferMut;
use core_view::contract::{ContractError, ErrorKind, Failure, Transfer};

use super::{ALIGNMENT, SimVolume};
use crate::{Alignment, FileName, NvmeError, VolumeFile};

#[derive(Debug)]
pub(super) struct SimFile {
    volume: SimVolume,
    name: FileName,
    inode: u64,
}

impl SimFile {
    pub(super) fn new(volume: SimVolume, name: FileName, inode: u64) -> Self {
        Self {
            volume,
            name,
            inode,
        }
    }

    fn error(&self, operation: &'static str, error: io::Error) -> ContractError {
        NvmeError::from_io(operation, self.name.as_str(), 0, error).into()
    }

    fn check(
        &self,
        operation: &'static str,
        offset_bytes: u64,
        buffer: &BufferMut,
    ) -> Result<(), ContractError> {
        let unit = ALIGNMENT.offset_bytes;
        if offset_bytes.is_multiple_of(unit as u64)
            && buffer.len().is_multiple_of(unit)
            && buffer.is_aligned_to(ALIGNMENT.memory_bytes)
        {
            return Ok(());
        }
        Err(
            ContractError::new(ErrorKind::InvalidInput, operation).detail(format!(
                "{} bytes at offset {offset_bytes} of {} are not aligned to {unit} bytes",
                buffer.len(),
                self.name
            )),
        )
    }

    fn read_all(&self, offset_bytes: u64, target: &mut BufferMut) -> Result<(), ContractError> {
        self.check("read", offset_bytes, target)?;
        let mut disk = self.volume.disk();
        disk.check_power(self.volume.cycle)
            .and_then(|()| disk.read(self.inode, offset_bytes, target))
            .map_err(|error| self.error("read", error))
    }

    fn write_all(&self, offset_bytes: u64, source: &BufferMut) -> Result<(), ContractError> {
        self.check("write", offset_bytes, source)?;
        self.write_bytes(offset_bytes, source)
    }

    fn write_bytes(&self, offset_bytes: u64, bytes: &[u8]) -> Result<(), ContractError> {
        self.volume
            .disk()
            .write(self.volume.cycle, self.inode, offset_bytes, bytes)
            .map_err(|error| self.error("write", error))
    }
}

impl VolumeFile for SimFile {
    fn name(&self) -> &FileName {
        &self.name
    }

    fn alignment(&self) -> Alignment {
        ALIGNMENT
    }

    fn len_bytes(&self) -> Result<u64, NvmeError> {
        self.volume
            .look("measure", self.name.as_str(), |disk| disk.len(self.inode))
    }

    fn read(&self, offset_bytes: u64, mut target: BufferMut) -> Transfer<BufferMut> {
        Transfer::ready(match self.read_all(offset_bytes, &mut target) {
            Ok(()) => Ok(target),
            Err(error) => Err(Failure::new(error, vec![target])),
        })
    }

    fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut> {
        Transfer::ready(match self.write_all(offset_bytes, &source) {
            Ok(()) => Ok(source),
            Err(error) => Err(Failure::new(error, vec![source])),
        })
    }

    fn write_vectored(
        &self,
        offset_bytes: u64,
        sources: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>> {
        // One operation, however many buffers: where memory happens to be aligned decides how many there
        // are, and may not decide what the seed does.
        let written = sources
            .iter()
            .try_for_each(|source| self.check("write", offset_bytes, source))
            .and_then(|()| self.write_bytes(offset_bytes, &concatenate(&sources)));
        Transfer::ready(match written {
            Ok(()) => Ok(sources),
            Err(error) => Err(Failure::new(error, sources)),
        })
    }

    fn sync(&self) -> Transfer<()> {
        let synced = self.volume.change("sync", self.name.as_str(), |disk| {
            disk.sync(self.inode)
                .map_err(|error| NvmeError::from_io("sync", self.name.as_str(), 0, error))
        });
        Transfer::ready(synced.map_err(|error| Failure::from(ContractError::from(error))))
    }
}

fn concatenate(sources: &[BufferMut]) -> Vec<u8> {
    sources
        .iter()
        .flat_map(|source| source.iter().copied())
        .collect()
}
