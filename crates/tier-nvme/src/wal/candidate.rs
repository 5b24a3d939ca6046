//! A file that may belong to a log, as opening finds it.

use std::sync::Arc;

use super::files::LogFile;
use super::recovery::start_of;
use super::scan::Scan;
use crate::format::{
    ChainLink, FormatError, GroupHeader, PAGE_BYTES, StoreId, VERSION, WalFileHeader,
};
use crate::{FileName, NvmeError, Volume};

/// A file with the name of one of the log's.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) file: Arc<LogFile>,
    pub(super) beginning: Beginning,
}

/// What a file begins with.
#[derive(Debug)]
pub(super) enum Beginning {
    /// A right header, with this file's number.
    Header(WalFileHeader),
    /// No right header, and a group that belongs behind one.
    Group(GroupHeader),
    /// Neither: it was made ready, or is to be used again, and nothing was written to it yet.
    Blank,
}

impl Candidate {
    pub(super) fn read(
        volume: &dyn Volume,
        name: &FileName,
        number: u64,
    ) -> Result<Self, NvmeError> {
        let file = volume.open(name)?;
        let len_bytes = file.len_bytes()?;
        let mut log_file = Arc::new(LogFile::new(number, file, len_bytes));
        let mut scan = Scan::new(&log_file, StoreId([0; 16]))?;
        let header = scan.page(0)?.map(WalFileHeader::decode);
        let group = scan
            .page(PAGE_BYTES as u64)?
            .and_then(|page| GroupHeader::decode_of_any_log(page, number, PAGE_BYTES as u64).ok());
        let beginning = match (header, group) {
            (Some(Err(FormatError::NewerVersion(found))), _) => {
                return Err(NvmeError::NewerVersion {
                    path: volume.report().location,
                    structure: "log file",
                    found,
                    supported: VERSION,
                });
            }
            (Some(Ok(header)), _) if header.number == number => {
                let file = log_file.handle()?;
                log_file = Arc::new(LogFile::new(number, file, header.file_bytes));
                if header.file_bytes > len_bytes {
                    return Err(NvmeError::Corrupt {
                        structure: "log file",
                        location: name.to_string(),
                        reason: format!("it has {len_bytes} of {} bytes", header.file_bytes),
                    });
                }
                Beginning::Header(header)
            }
            (_, Some(group)) => Beginning::Group(group),
            _ => Beginning::Blank,
        };
        Ok(Self {
            file: log_file,
            beginning,
        })
    }

    pub(super) fn is_begun(&self) -> bool {
        !matches!(self.beginning, Beginning::Blank)
    }

    pub(super) fn header(&self) -> Option<&WalFileHeader> {
        match &self.beginning {
            Beginning::Header(header) => Some(header),
            _ => None,
        }
    }

    pub(super) fn group(&self) -> Option<&GroupHeader> {
        match &self.beginning {
            Beginning::Group(header) => Some(header),
            _ => None,
        }
    }

    /// Where the log was when the file was begun, if it is of this log.
    pub(super) fn start_in(&self, log_id: StoreId) -> Option<ChainLink> {
        match &self.beginning {
            Beginning::Header(header) if header.log_id == log_id => Some(header.start),
            Beginning::Group(header) if header.place.log_id == log_id => Some(start_of(header)),
            _ => None,
        }
    }

    pub(super) fn file_len_bytes(&self) -> Result<u64, NvmeError> {
        self.file.handle()?.len_bytes()
    }

    /// Refuses a file that was begun although it does not look so.
    ///
    /// A log's first file has its header before anything else: where groups are, a header was.
    pub(super) fn check_blank(&self) -> Result<(), NvmeError> {
        let mut scan = Scan::new(&self.file, StoreId([0; 16]))?;
        let mut offset_bytes = PAGE_BYTES as u64;
        while let Some(page) = scan.page(offset_bytes)? {
            if GroupHeader::decode_of_any_log(page, self.file.number, offset_bytes).is_ok() {
                return Err(NvmeError::Corrupt {
                    structure: "log file",
                    location: self.file.name.to_string(),
                    reason: format!("its header is damaged, and it has a group at {offset_bytes}"),
                });
            }
            offset_bytes += PAGE_BYTES as u64;
        }
        Ok(())
    }
}
