//! A file of a simulated volume.

use core_view::BufferMut;
use core_view::contract::{ContractError, ErrorKind, Failure, Transfer};

use super::flight::{Flying, Work};
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

    /// Submits what `work` makes of the completer, if the memory is as it must be.
    fn submit(&self, offset_bytes: u64, len_bytes: usize, work: Work) {
        let place = (offset_bytes, len_bytes);
        let flying = Flying::new(
            self.volume.cycle(),
            self.inode,
            self.name.clone(),
            place,
            work,
        );
        self.volume.submit(flying);
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

    fn read(&self, offset_bytes: u64, target: BufferMut) -> Transfer<BufferMut> {
        if let Err(error) = self.check("read", offset_bytes, &target) {
            return Transfer::ready(Err(Failure::new(error, vec![target])));
        }
        let (transfer, completer) = Transfer::driven(self.volume.as_drive());
        self.submit(offset_bytes, target.len(), Work::Read(target, completer));
        transfer
    }

    fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut> {
        if let Err(error) = self.check("write", offset_bytes, &source) {
            return Transfer::ready(Err(Failure::new(error, vec![source])));
        }
        let (transfer, completer) = Transfer::driven(self.volume.as_drive());
        self.submit(offset_bytes, source.len(), Work::Write(source, completer));
        transfer
    }

    fn write_vectored(
        &self,
        offset_bytes: u64,
        sources: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>> {
        let mut checked = sources.iter();
        if let Err(error) = checked.try_for_each(|source| self.check("write", offset_bytes, source))
        {
            return Transfer::ready(Err(Failure::new(error, sources)));
        }
        let (transfer, completer) = Transfer::driven(self.volume.as_drive());
        // One operation, however many buffers: where memory happens to be aligned decides how many there
        // are, and may not decide what the seed does.
        let len_bytes = sources.iter().map(|source| source.len()).sum();
        let gathered = if sources.len() == 1 {
            Vec::new()
        } else {
            concatenate(&sources)
        };
        let work = Work::WriteVectored(gathered, sources, completer);
        self.submit(offset_bytes, len_bytes, work);
        transfer
    }

    fn sync(&self) -> Transfer<()> {
        let (transfer, completer) = Transfer::driven(self.volume.as_drive());
        self.submit(0, 0, Work::Sync(completer));
        transfer
    }
}

fn concatenate(sources: &[BufferMut]) -> Vec<u8> {
    let len_bytes = sources.iter().map(|source| source.len()).sum();
    let mut bytes = Vec::with_capacity(len_bytes);
    sources
        .iter()
        .for_each(|source| bytes.extend_from_slice(source));
    bytes
}
