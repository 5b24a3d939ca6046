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
        self.volume
            .disk()
            .write(self.volume.cycle, self.inode, offset_bytes, source)
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
        let mut offset_bytes = offset_bytes;
        for source in &sources {
            if let Err(error) = self.write_all(offset_bytes, source) {
                return Transfer::ready(Err(Failure::new(error, sources)));
            }
            offset_bytes += source.len() as u64;
        }
        Transfer::ready(Ok(sources))
    }

    fn sync(&self) -> Transfer<()> {
        let synced = self.volume.change("sync", self.name.as_str(), |disk| {
            disk.sync(self.inode)
                .map_err(|error| NvmeError::from_io("sync", self.name.as_str(), 0, error))
        });
        Transfer::ready(synced.map_err(|error| Failure::from(ContractError::from(error))))
    }
}
