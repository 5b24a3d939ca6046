//! What goes with a block below memory, as `docs/formats/kv-blocks.md` has it.

use core_view::contract::{BlockKey, BlockMeta, ContractError};
use crc_fast::CrcAlgorithm;

use crate::layout::{Axis, Layout};
use crate::{Error, Salt, SequenceHash};

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 96;

/// The version that is written, and the only one that is read.
const VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"SKVB";
const CHECKED_BYTES: usize = HEADER_BYTES - 4;

/// Why the bytes of a block are not those that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mismatch {
    /// The header is too short, or its magic or checksum is wrong.
    Header,
    /// The header has a version that isn't known.
    Version {
        /// The version found.
        found: u16,
    },
    /// The header has features that aren't known.
    Features {
        /// Their bits.
        found: u16,
    },
    /// It is another block.
    Identity,
    /// It was written under another salt.
    Salt,
    /// A field of the layout differs.
    Layout {
        /// The first field that does.
        field: &'static str,
        /// Its value here.
        expected: usize,
        /// Its value in the header.
        found: usize,
    },
    /// The payload has another length.
    Length,
    /// The payload has another checksum.
    Payload,
}

impl Mismatch {
    /// A word for counts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Version { .. } => "version",
            Self::Features { .. } => "features",
            Self::Identity => "identity",
            Self::Salt => "salt",
            Self::Layout { .. } => "layout",
            Self::Length => "length",
            Self::Payload => "checksum",
        }
    }

    /// The error that opening a tier fails with.
    pub(super) fn into_error(self) -> Option<Error> {
        match self {
            Self::Version { found } => Some(Error::BlockVersion {
                found,
                known: VERSION,
            }),
            Self::Features { found } => Some(Error::BlockFeatures { found }),
            Self::Layout {
                field,
                expected,
                found,
            } => Some(Error::LayoutMismatch {
                field,
                expected,
                found,
            }),
            _ => None,
        }
    }
}

/// The fields that all blocks of a tier have in common, and those of each.
#[derive(Debug, Clone)]
pub(super) struct HeaderForm {
    /// Bytes 28–31 and 48–91; the rest is zero.
    fixed: [u8; HEADER_BYTES],
    payload_bytes: usize,
}

/// Fields of the layout with their places; the last two stand for several.
const LAYOUT_FIELDS: [(&str, usize, usize); 12] = [
    ("page_size", 28, 4),
    ("num_layers", 56, 4),
    ("outer_dim", 60, 4),
    ("heads", 64, 4),
    ("head_dim", 68, 4),
    ("dtype_bytes", 72, 4),
    ("groups", 76, 2),
    ("order", 78, 1),
    ("order", 79, 1),
    ("order", 80, 2),
    ("order", 82, 1),
    ("group", 84, 8),
];

impl HeaderForm {
    /// For blocks of this layout, under this salt.
    pub(super) fn new(layout: &Layout, salt: &Salt) -> Result<Self, Error> {
        let mut fixed = [0; HEADER_BYTES];
        let narrow = |field: &'static str, value: usize| {
            u32::try_from(value).map_err(|_| Error::InvalidConfig {
                field,
                value: value.to_string(),
                reason: "a header has 4 bytes for it",
            })
        };
        let groups = layout.groups();
        let first = groups.first().copied();
        let of_first = |field, value: fn(&crate::layout::LayerGroup) -> usize| {
            narrow(field, first.as_ref().map_or(0, value))
        };
        put(
            &mut fixed,
            28,
            &narrow("page_size", layout.page_size())?.to_le_bytes(),
        );
        put(&mut fixed, 48, &salt.fingerprint().to_le_bytes());
        put(
            &mut fixed,
            56,
            &narrow("num_layers", layout.num_layers())?.to_le_bytes(),
        );
        put(
            &mut fixed,
            60,
            &of_first("outer_dim", |g| g.outer_dim)?.to_le_bytes(),
        );
        put(
            &mut fixed,
            64,
            &of_first("heads", |g| g.heads)?.to_le_bytes(),
        );
        put(
            &mut fixed,
            68,
            &of_first("head_dim", |g| g.head_dim)?.to_le_bytes(),
        );
        put(
            &mut fixed,
            72,
            &narrow("dtype_bytes", layout.dtype_bytes())?.to_le_bytes(),
        );
        let count = u16::try_from(groups.len()).map_err(|_| Error::InvalidConfig {
            field: "group",
            value: groups.len().to_string(),
            reason: "a header has 2 bytes for the number of groups",
        })?;
        put(&mut fixed, 76, &count.to_le_bytes());
        let axes = layout.order().axes().map(|axis| {
            Axis::ALL
                .iter()
                .position(|&known| known == axis)
                .unwrap_or(0) as u8
        });
        put(&mut fixed, 78, &axes);
        let mut digest = blake3::Hasher::new();
        digest.update(&fixed[28..32]);
        digest.update(&fixed[56..83]);
        for group in groups {
            for value in [
                group.num_layers,
                group.outer_dim,
                group.heads,
                group.head_dim,
            ] {
                digest.update(&narrow("group", value)?.to_le_bytes());
            }
        }
        put(&mut fixed, 84, &digest.finalize().as_bytes()[..8]);
        Ok(Self {
            fixed,
            payload_bytes: layout.block_bytes(),
        })
    }

    /// Bytes of each payload.
    pub(super) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// The header of a block with this payload.
    pub(super) fn encode(
        &self,
        hash: SequenceHash,
        payload: &[u8],
    ) -> Result<BlockMeta, ContractError> {
        let mut bytes = self.fixed;
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 4, &VERSION.to_le_bytes());
        put(&mut bytes, 8, &hash.as_u128().to_le_bytes());
        put(&mut bytes, 24, &hash.position().to_le_bytes());
        put(&mut bytes, 32, &(payload.len() as u64).to_le_bytes());
        put(&mut bytes, 40, &payload_checksum(payload).to_le_bytes());
        let checksum = header_checksum(&bytes);
        put(&mut bytes, CHECKED_BYTES, &checksum.to_le_bytes());
        BlockMeta::new(&bytes)
    }

    /// Who the block under `key` is, if all of its header is as it would be written here.
    pub(super) fn identify(
        &self,
        key: BlockKey,
        meta: &BlockMeta,
    ) -> Result<SequenceHash, Mismatch> {
        let bytes: &[u8; HEADER_BYTES] =
            meta.as_slice().try_into().map_err(|_| Mismatch::Header)?;
        if bytes[..4] != MAGIC {
            return Err(Mismatch::Header);
        }
        if number(bytes, CHECKED_BYTES, 4) != u128::from(header_checksum(bytes)) {
            return Err(Mismatch::Header);
        }
        let found = number(bytes, 4, 2) as u16;
        if found != VERSION {
            return Err(Mismatch::Version { found });
        }
        let found = number(bytes, 6, 2) as u16;
        if found != 0 {
            return Err(Mismatch::Features { found });
        }
        let hash = SequenceHash::new(number(bytes, 8, 16), number(bytes, 24, 4) as u32);
        if hash.as_u128() != key.0 {
            // mutant: kv-no-identity-check
            return Err(Mismatch::Identity);
        }
        if bytes[48..56] != self.fixed[48..56] {
            // mutant: kv-no-salt-check
            return Err(Mismatch::Salt);
        }
        for (field, at, width) in LAYOUT_FIELDS {
            let (expected, found) = (number(&self.fixed, at, width), number(bytes, at, width));
            if expected != found {
                // mutant: kv-no-layout-check
                return Err(Mismatch::Layout {
                    field,
                    expected: expected as usize,
                    found: found as usize,
                });
            }
        }
        if number(bytes, 32, 8) != self.payload_bytes as u128 {
            return Err(Mismatch::Length);
        }
        Ok(hash)
    }

    /// Checks a block that was fetched against what was asked for.
    pub(super) fn verify(
        &self,
        hash: SequenceHash,
        meta: &BlockMeta,
        payload: &[u8],
    ) -> Result<(), Mismatch> {
        let found = self.identify(BlockKey(hash.as_u128()), meta)?;
        if found != hash {
            // mutant: kv-no-identity-check
            return Err(Mismatch::Identity);
        }
        if payload.len() != self.payload_bytes {
            return Err(Mismatch::Length);
        }
        let bytes: &[u8; HEADER_BYTES] =
            meta.as_slice().try_into().map_err(|_| Mismatch::Header)?;
        if number(bytes, 40, 8) != u128::from(payload_checksum(payload)) {
            // mutant: kv-no-payload-check
            return Err(Mismatch::Payload);
        }
        Ok(())
    }
}

fn put(bytes: &mut [u8; HEADER_BYTES], at: usize, field: &[u8]) {
    for (target, source) in bytes.iter_mut().skip(at).zip(field) {
        *target = *source;
    }
}

fn number(bytes: &[u8; HEADER_BYTES], at: usize, width: usize) -> u128 {
    let field = bytes.iter().skip(at).take(width);
    field
        .rev()
        .fold(0, |number, &byte| number << 8 | u128::from(byte))
}

fn header_checksum(bytes: &[u8; HEADER_BYTES]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &bytes[..CHECKED_BYTES]) as u32
}

fn payload_checksum(payload: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LayoutConfig;

    fn form(outer: usize, heads: usize, salt: &str) -> HeaderForm {
        let layout = LayoutConfig::builder()
            .num_blocks(1)
            .num_layers(2)
            .outer_dim(outer)
            .page_size(4)
            .heads(heads)
            .head_dim(8)
            .build()
            .unwrap();
        HeaderForm::new(&layout, &Salt::new(salt)).unwrap()
    }

    fn hash() -> SequenceHash {
        SequenceHash::new(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, 7)
    }

    #[test]
    fn a_block_is_known_again_and_every_flipped_bit_is_seen() {
        let form = form(2, 3, "m");
        let payload = vec![5; form.payload_bytes()];
        let meta = form.encode(hash(), &payload).unwrap();
        assert_eq!(form.verify(hash(), &meta, &payload), Ok(()));
        for bit in 0..HEADER_BYTES * 8 {
            let mut bytes = meta.as_slice().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let flipped = BlockMeta::new(&bytes).unwrap();
            assert_eq!(
                form.verify(hash(), &flipped, &payload),
                Err(Mismatch::Header),
                "{bit}"
            );
        }
        for bit in 0..payload.len() * 8 {
            let mut payload = payload.clone();
            payload[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                form.verify(hash(), &meta, &payload),
                Err(Mismatch::Payload),
                "{bit}"
            );
        }
        assert_eq!(
            form.verify(hash(), &meta, &payload[1..]),
            Err(Mismatch::Length)
        );
        for len in 0..HEADER_BYTES {
            let short = BlockMeta::new(&meta.as_slice()[..len]).unwrap();
            assert_eq!(form.verify(hash(), &short, &payload), Err(Mismatch::Header));
        }
    }

    #[test]
    fn what_differs_is_named() {
        let here = form(2, 3, "m");
        let payload = vec![5; here.payload_bytes()];
        let key = BlockKey(hash().as_u128());
        let other = |outer, heads, salt| form(outer, heads, salt).encode(hash(), &payload).unwrap();
        let layout = |field, expected, found| {
            Err(Mismatch::Layout {
                field,
                expected,
                found,
            })
        };
        assert_eq!(
            here.identify(key, &other(1, 3, "m")),
            layout("outer_dim", 2, 1)
        );
        assert_eq!(here.identify(key, &other(2, 6, "m")), layout("heads", 3, 6));
        assert_eq!(here.identify(key, &other(2, 3, "n")), Err(Mismatch::Salt));
        let same = other(2, 3, "m");
        assert_eq!(here.identify(BlockKey(1), &same), Err(Mismatch::Identity));
        let elsewhere = SequenceHash::new(hash().as_u128(), 8);
        assert_eq!(
            here.verify(elsewhere, &same, &payload),
            Err(Mismatch::Identity)
        );
        let mut newer = *<&[u8; HEADER_BYTES]>::try_from(same.as_slice()).unwrap();
        newer[4] = 2;
        let checksum = header_checksum(&newer);
        put(&mut newer, CHECKED_BYTES, &checksum.to_le_bytes());
        let newer = BlockMeta::new(&newer).unwrap();
        assert_eq!(
            here.identify(key, &newer),
            Err(Mismatch::Version { found: 2 })
        );
    }
}
