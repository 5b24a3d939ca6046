//! A file of a real volume.

use std::sync::{Arc, Once};

use core_view::contract::{ContractError, ErrorKind, Failure, Transfer};
use core_view::{BufferMut, TensorStorage};

use super::{map, straggler};
use crate::engine::{Engine, OpenFile, Operation, run_attempts};
use crate::{Alignment, FileName, NvmeError, ReadQueue, VolumeFile};

/// Offsets that a file can have at most.
const END_BYTES_MAX: u64 = i64::MAX as u64;

/// A file whose reads and writes an engine carries out.
#[derive(Debug)]
pub(super) struct RealFile {
    file: Arc<OpenFile>,
    engine: Arc<dyn Engine>,
    writable: bool,
    /// Done once the file is marked as written.
    marking: Once,
}

impl RealFile {
    pub(super) fn new(file: OpenFile, engine: Arc<dyn Engine>, writable: bool) -> Self {
        Self {
            file: Arc::new(file),
            engine,
            writable,
            marking: Once::new(),
        }
    }

    fn refuse(&self, operation: &'static str, reason: &str) -> ContractError {
        ContractError::new(ErrorKind::InvalidInput, operation)
            .detail(format!("{}: {reason}", self.file.path))
    }

    fn check_range(
        &self,
        operation: &'static str,
        offset_bytes: u64,
        len_bytes: usize,
    ) -> Result<(), ContractError> {
        let unit = self.file.alignment.offset_bytes;
        if !offset_bytes.is_multiple_of(unit as u64) {
            let reason = format!("offset {offset_bytes} is not a multiple of {unit} bytes");
            return Err(self.refuse(operation, &reason));
        }
        let end = offset_bytes.checked_add(len_bytes as u64);
        if end.is_none_or(|end| end > END_BYTES_MAX) {
            let reason = format!("{len_bytes} bytes at offset {offset_bytes} are out of range");
            return Err(self.refuse(operation, &reason));
        }
        Ok(())
    }

    fn check_buffer(
        &self,
        operation: &'static str,
        buffer: &BufferMut,
    ) -> Result<(), ContractError> {
        let Alignment {
            memory_bytes,
            offset_bytes,
        } = self.file.alignment;
        if !buffer.len().is_multiple_of(offset_bytes) {
            let reason = format!(
                "a buffer of {} bytes is not a multiple of {offset_bytes} bytes",
                buffer.len()
            );
            return Err(self.refuse(operation, &reason));
        }
        if !buffer.is_aligned_to(memory_bytes) {
            let reason = format!(
                "a buffer at {:p} is not aligned to {memory_bytes} bytes",
                buffer.as_ptr()
            );
            return Err(self.refuse(operation, &reason));
        }
        Ok(())
    }

    fn check(
        &self,
        operation: &'static str,
        offset_bytes: u64,
        buffer: &BufferMut,
    ) -> Result<(), ContractError> {
        self.check_range(operation, offset_bytes, buffer.len())?;
        self.check_buffer(operation, buffer)
    }

    fn check_writable(&self) -> Result<(), ContractError> {
        if self.writable {
            return Ok(());
        }
        Err(ContractError::new(ErrorKind::Unsupported, "write file")
            .detail(format!("{} is open for reading only", self.file.path)))
    }

    /// Marks the file before the first write: who only reads keeps nobody waiting.
    fn mark_in_use(&self) {
        self.marking
            .call_once(|| straggler::mark_in_use(&self.file.file));
    }

    /// The length of all buffers together, if the write can be done.
    fn check_vectored(
        &self,
        offset_bytes: u64,
        sources: &[BufferMut],
    ) -> Result<usize, ContractError> {
        self.check_writable()?;
        let len_bytes = sources
            .iter()
            .try_fold(0usize, |sum, source| sum.checked_add(source.len()))
            .ok_or_else(|| self.refuse("write file", "the buffers are too long together"))?;
        self.check_range("write file", offset_bytes, len_bytes)?;
        for source in sources {
            self.check_buffer("write file", source)?;
        }
        Ok(len_bytes)
    }
}

impl VolumeFile for RealFile {
    fn name(&self) -> &FileName {
        &self.file.name
    }

    fn alignment(&self) -> Alignment {
        self.file.alignment
    }

    fn len_bytes(&self) -> Result<u64, NvmeError> {
        self.file
            .file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(|error| NvmeError::from_io("get length of", &*self.file.path, 0, error))
    }

    fn read(&self, offset_bytes: u64, target: BufferMut) -> Transfer<BufferMut> {
        if let Err(error) = self.check("read file", offset_bytes, &target) {
            return Transfer::ready(Err(Failure::new(error, vec![target])));
        }
        let (operation, transfer) = Operation::read(Arc::clone(&self.file), offset_bytes, target);
        self.engine.submit(operation);
        transfer
    }

    fn write(&self, offset_bytes: u64, source: BufferMut) -> Transfer<BufferMut> {
        let checked = self
            .check_writable()
            .and_then(|()| self.check("write file", offset_bytes, &source));
        if let Err(error) = checked {
            return Transfer::ready(Err(Failure::new(error, vec![source])));
        }
        self.mark_in_use();
        let (operation, transfer) = Operation::write(Arc::clone(&self.file), offset_bytes, source);
        self.engine.submit(operation);
        transfer
    }

    fn write_vectored(
        &self,
        offset_bytes: u64,
        sources: Vec<BufferMut>,
    ) -> Transfer<Vec<BufferMut>> {
        let len_bytes = match self.check_vectored(offset_bytes, &sources) {
            Ok(len_bytes) => len_bytes,
            Err(error) => return Transfer::ready(Err(Failure::new(error, sources))),
        };
        self.mark_in_use();
        let file = Arc::clone(&self.file);
        let (operation, transfer) =
            Operation::write_vectored(file, offset_bytes, sources, len_bytes);
        self.engine.submit(operation);
        transfer
    }

    fn sync(&self) -> Transfer<()> {
        let (operation, transfer) = Operation::sync(Arc::clone(&self.file));
        self.engine.submit(operation);
        transfer
    }

    fn read_blocking(&self, offset_bytes: u64, target: BufferMut) -> Result<BufferMut, Failure> {
        if let Err(error) = self.check("read file", offset_bytes, &target) {
            return Err(Failure::new(error, vec![target]));
        }
        let file = Arc::clone(&self.file);
        let mut operation = Operation::read_here(file, offset_bytes, target);
        let counters = self.engine.counters();
        let outcome = run_attempts(&mut operation, counters);
        operation.finish_read(outcome, counters)
    }

    fn read_queued(&self, queue: &mut ReadQueue, tag: u64, offset_bytes: u64, target: BufferMut) {
        if let Err(error) = self.check("read file", offset_bytes, &target) {
            let refused = Transfer::ready(Err(Failure::new(error, vec![target])));
            queue.push_transfer(tag, refused);
            return;
        }
        let file = Arc::clone(&self.file);
        let operation = Operation::read_here(file, offset_bytes, target);
        if let Err(operation) = queue.push_operation(tag, &*self.engine, operation) {
            let (operation, transfer) = operation.with_transfer();
            self.engine.submit(operation);
            queue.push_transfer(tag, transfer);
        }
    }

    unsafe fn map(&self, offset_bytes: u64, len_bytes: usize) -> Result<TensorStorage, NvmeError> {
        crate::volume::check_map_range(self, offset_bytes, len_bytes)?;
        if len_bytes == 0 {
            return Ok(TensorStorage::from(BufferMut::from_vec(Vec::new())));
        }
        // SAFETY: the range was checked to lie in the file; the rest is the caller's promise.
        let mapped = unsafe { map::map(&self.file.file, offset_bytes, len_bytes) };
        mapped.map_err(|error| NvmeError::from_io("map", &*self.file.path, 0, error))
    }
}
