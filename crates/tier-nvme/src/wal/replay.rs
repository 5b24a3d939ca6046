//! Reading a log.

use std::collections::VecDeque;
use std::sync::Arc;

use core_view::BufferMut;

use super::files::Begun;
use super::scan::{Scan, check_group};
use super::{Lsn, Shared};
use crate::NvmeError;
use crate::format::{ChainLink, FormatError, GroupHeader, PAGE_BYTES, Records, StoreId};

/// A record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalRecord {
    /// Its number.
    pub lsn: Lsn,
    /// The bytes that were appended.
    pub payload: Vec<u8>,
}

/// The records of a log from one LSN up to the newest that was durable when the reading began, in order.
///
/// It holds one group of records in memory. After an error it ends.
#[derive(Debug)]
pub struct WalReplay {
    log_id: StoreId,
    from: u64,
    /// After the last group that is read.
    end: ChainLink,
    /// After the newest group that was read.
    link: ChainLink,
    files: VecDeque<Begun>,
    scan: Option<(Scan, u64)>,
    group: Option<Group>,
    is_over: bool,
}

/// A checked group, and how far it is read.
#[derive(Debug)]
struct Group {
    header: GroupHeader,
    bytes: BufferMut,
    position: usize,
    next_lsn: u64,
}

impl Shared {
    pub(super) fn replay(self: &Arc<Self>, from: Lsn) -> Result<WalReplay, NvmeError> {
        let pipeline = self.lock();
        if pipeline.is_closed {
            return Err(NvmeError::Closed);
        }
        let first = pipeline.begun.front().map_or(1, |begun| begun.first_lsn);
        let next = pipeline.durable.next_lsn;
        if from.get() < first || from.get() > next {
            return Err(NvmeError::Corrupt {
                structure: "log",
                location: self.location(),
                reason: format!(
                    "it holds the records from {first} to before {next}, and those from {from} are asked for"
                ),
            });
        }
        // The last file that begins at or before the first record that is wanted.
        let skipped = pipeline
            .begun
            .iter()
            .take_while(|begun| begun.first_lsn <= from.get())
            .count()
            .saturating_sub(1);
        let files: VecDeque<_> = pipeline
            .begun
            .iter()
            .skip(skipped)
            .filter(|begun| {
                begun
                    .start
                    .is_some_and(|start| start.sequence <= pipeline.durable.sequence)
            })
            .cloned()
            .collect();
        let start = files.front().and_then(|begun| begun.start);
        Ok(WalReplay {
            log_id: pipeline.log_id,
            from: from.get(),
            end: pipeline.durable,
            link: start.unwrap_or(pipeline.durable),
            files,
            scan: None,
            group: None,
            is_over: false,
        })
    }
}

impl WalReplay {
    fn step(&mut self) -> Result<Option<WalRecord>, NvmeError> {
        loop {
            if let Some(record) = self.next_in_group()? {
                if record.lsn.get() >= self.from {
                    return Ok(Some(record));
                }
                continue;
            }
            if self.link.sequence >= self.end.sequence {
                return Ok(None);
            }
            self.next_group()?;
        }
    }

    fn next_in_group(&mut self) -> Result<Option<WalRecord>, NvmeError> {
        let Some(group) = &mut self.group else {
            return Ok(None);
        };
        match group.next_record() {
            Ok(Some(record)) => Ok(Some(record)),
            Ok(None) => {
                self.group = None;
                Ok(None)
            }
            Err(error) => Err(self.corrupt(&error.reason())),
        }
    }

    /// Moves to the next group, and reads it if anything in it is wanted.
    fn next_group(&mut self) -> Result<(), NvmeError> {
        let Some((scan, offset)) = &mut self.scan else {
            return self.next_file();
        };
        let header = scan
            .header(*offset)?
            .filter(|header| self.link.is_followed_by(header));
        let Some(header) = header else {
            return self.next_file();
        };
        if header.next_lsn() > self.from && header.record_count > 0 {
            let bytes = scan.group(&header)?;
            if let Err(error) = check_group(&header, &bytes) {
                return Err(scan.corrupt(*offset, &error.reason()));
            }
            self.group = Some(Group {
                next_lsn: header.first_lsn,
                position: crate::format::GROUP_HEADER_BYTES,
                header: header.clone(),
                bytes,
            });
        }
        *offset = header.end_bytes();
        self.link = ChainLink::after(&header);
        Ok(())
    }

    /// Moves to the file that begins where this one ends.
    fn next_file(&mut self) -> Result<(), NvmeError> {
        let next = self.files.pop_front();
        let Some(next) = next.filter(|next| next.start == Some(self.link)) else {
            return Err(self.corrupt("a group that was acknowledged is not there"));
        };
        self.scan = Some((Scan::new(&next.file, self.log_id)?, PAGE_BYTES as u64));
        Ok(())
    }

    fn corrupt(&self, reason: &str) -> NvmeError {
        match &self.scan {
            Some((scan, offset)) => scan.corrupt(*offset, reason),
            None => NvmeError::Corrupt {
                structure: "log",
                location: "its first file".to_owned(),
                reason: reason.to_owned(),
            },
        }
    }
}

impl Group {
    fn next_record(&mut self) -> Result<Option<WalRecord>, FormatError> {
        let mut records = Records::resume(&self.header, &self.bytes, self.position, self.next_lsn)?;
        let record = records.next_record()?.map(|(lsn, _, payload)| WalRecord {
            lsn: Lsn::new(lsn),
            payload: payload.to_vec(),
        });
        self.position = self.header.group_bytes as usize - records.rest_bytes();
        self.next_lsn += 1;
        Ok(record)
    }
}

impl Iterator for WalReplay {
    type Item = Result<WalRecord, NvmeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.step().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
