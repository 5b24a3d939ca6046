//! Writes zip archives, lying ones too.

use std::io::Write;

/// An archive in the making.
#[derive(Default)]
pub(super) struct Pack {
    bytes: Vec<u8>,
    directory: Vec<Vec<u8>>,
    deflate: bool,
}

impl Pack {
    /// Whether what is added from now on is compressed.
    pub(super) fn with_deflate(mut self, deflate: bool) -> Self {
        self.deflate = deflate;
        self
    }

    pub(super) fn stored(self, name: &str, content: &[u8]) -> Self {
        self.with_deflate(false).add(name, content)
    }

    pub(super) fn add(mut self, name: &str, content: &[u8]) -> Self {
        let stored = match self.deflate {
            true => {
                let mut encoder =
                    flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            false => content.to_vec(),
        };
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, content) as u32;
        let offset = self.bytes.len() as u32;
        let common = [
            &20_u16.to_le_bytes()[..],
            &0_u16.to_le_bytes(),
            &(if self.deflate { 8_u16 } else { 0 }).to_le_bytes(),
            &[0; 4],
            &crc.to_le_bytes(),
            &(stored.len() as u32).to_le_bytes(),
            &(content.len() as u32).to_le_bytes(),
            &(name.len() as u16).to_le_bytes(),
            &[0; 2],
        ]
        .concat();
        self.bytes.extend_from_slice(b"PK\x03\x04");
        self.bytes.extend_from_slice(&common);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(&stored);
        let record = [
            &b"PK\x01\x02"[..],
            &20_u16.to_le_bytes(),
            &common,
            &[0; 10],
            &offset.to_le_bytes(),
            name.as_bytes(),
        ]
        .concat();
        self.directory.push(record);
        self
    }

    fn claim(mut self, at: usize, value: &[u8]) -> Self {
        let record = self.directory.last_mut().unwrap();
        record[at..at + value.len()].copy_from_slice(value);
        self
    }

    /// Lets the last entry claim another length; above 32 bits in the extra field of ZIP64.
    pub(super) fn with_claim(self, len: u64) -> Self {
        let mut pack = self.claim(24, &u32::MAX.to_le_bytes());
        let record = pack.directory.last_mut().unwrap();
        record[30..32].copy_from_slice(&12_u16.to_le_bytes());
        record.extend_from_slice(
            &[
                &1_u16.to_le_bytes()[..],
                &8_u16.to_le_bytes(),
                &len.to_le_bytes(),
            ]
            .concat(),
        );
        pack
    }

    /// Lets the last entry claim another stored length.
    pub(super) fn with_stored_claim(self, len: u32) -> Self {
        self.claim(20, &len.to_le_bytes())
    }

    pub(super) fn with_flags(self, flags: u16) -> Self {
        self.claim(8, &flags.to_le_bytes())
    }

    pub(super) fn with_method(self, method: u16) -> Self {
        self.claim(10, &method.to_le_bytes())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let start = self.bytes.len() as u32;
        let directory = self.directory.concat();
        let count = (self.directory.len() as u16).to_le_bytes();
        [
            &self.bytes[..],
            &directory,
            b"PK\x05\x06",
            &[0; 4],
            &count,
            &count,
            &(directory.len() as u32).to_le_bytes(),
            &start.to_le_bytes(),
            &[0; 2],
        ]
        .concat()
    }
}

/// An array as numpy writes it.
pub(super) fn npy(descr: &str, fortran_order: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran_order { "True" } else { "False" };
    let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let len = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], text.as_bytes(), data].concat()
}
