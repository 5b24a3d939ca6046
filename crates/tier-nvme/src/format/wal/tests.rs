//! Groups come back as they were written, and nothing else is taken for one.

use proptest::prelude::*;

use super::*;

const LOG: StoreId = StoreId([7; 16]);

fn place() -> GroupPlace {
    GroupPlace {
        log_id: LOG,
        number: 3,
        offset_bytes: 8192,
    }
}

/// A group of these records, without padding.
fn group(payloads: &[Vec<u8>]) -> (GroupHeader, Vec<u8>) {
    let first_lsn = 9;
    let mut bytes = vec![0; GROUP_HEADER_BYTES];
    let mut headers = Vec::new();
    for (lsn, payload) in (first_lsn..).zip(payloads) {
        let header = record_header(LOG, lsn, payload);
        headers.extend_from_slice(&header);
        let end = bytes.len() + record_bytes(payload.len()).unwrap();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(payload);
        bytes.resize(end, 0);
    }
    let mut header = GroupHeader {
        place: place(),
        sequence: 5,
        synced_sequence: 4,
        first_lsn,
        life: 11,
        previous_checksum: 12,
        record_count: payloads.len() as u32,
        group_bytes: bytes.len() as u32,
        records_checksum: crc32c(&headers),
        checksum: 0,
    };
    let encoded = header.encode();
    bytes[..GROUP_HEADER_BYTES].copy_from_slice(&encoded);
    (header, bytes)
}

fn is_whole(bytes: &[u8]) -> bool {
    GroupHeader::decode(bytes, &place())
        .and_then(|header| Records::check(&header, bytes))
        .is_ok()
}

proptest! {
    #[test]
    fn records_come_back(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let (header, bytes) = group(&payloads);
        prop_assert_eq!(GroupHeader::decode(&bytes, &place()), Ok(header.clone()));
        prop_assert!(is_whole(&bytes));
        let mut records = Records::new(&header, &bytes).unwrap();
        for (lsn, payload) in (9..).zip(&payloads) {
            let (read_lsn, _, read) = records.next_record().unwrap().unwrap();
            prop_assert_eq!((read_lsn, read), (lsn, payload.as_slice()));
        }
        prop_assert_eq!(records.next_record(), Ok(None));
        prop_assert_eq!(header.next_lsn(), 9 + payloads.len() as u64);
    }

    #[test]
    fn wrong_fields_behind_a_right_checksum_do_no_harm(
        changes in prop::collection::vec((0_usize..160, any::<u8>()), 1..6),
    ) {
        let (_, mut bytes) = group(&[vec![1; 20], vec![2; 3]]);
        for (at, byte) in changes {
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
        }
        let checksum = crc32c(&bytes[..GROUP_HEADER_BYTES - 4]);
        bytes[GROUP_HEADER_BYTES - 4..GROUP_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(header) = GroupHeader::decode_anywhere(&bytes) {
            drop(Records::check(&header, &bytes));
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    // Lengths that leave no padding: what pads a record is dead.
    let (_, bytes) = group(&[vec![1; 16], vec![], vec![2; 104]]);
    assert!(is_whole(&bytes));
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_whole(&bytes), "bit {bit}");
    }
}

#[test]
fn a_group_that_belongs_elsewhere_is_refused() {
    let (_, bytes) = group(&[vec![1; 16]]);
    let elsewhere = [
        GroupPlace {
            log_id: StoreId([8; 16]),
            ..place()
        },
        GroupPlace {
            number: 4,
            ..place()
        },
        GroupPlace {
            offset_bytes: 4096,
            ..place()
        },
    ];
    for place in elsewhere {
        assert!(GroupHeader::decode(&bytes, &place).is_err(), "{place:?}");
    }
}

#[test]
fn another_life_is_another_group() {
    let (header, _) = group(&[vec![1; 16]]);
    let mut again = GroupHeader {
        life: header.life + 1,
        ..header.clone()
    };
    again.encode();
    assert_ne!(again.checksum, header.checksum);
    let link = ChainLink::after(&header);
    let mut next = GroupHeader {
        sequence: 6,
        previous_checksum: header.checksum,
        first_lsn: header.next_lsn(),
        ..header
    };
    next.encode();
    assert!(link.is_followed_by(&next));
    assert!(!ChainLink::after(&again).is_followed_by(&next));
}
