//! Headers as numpy writes them, and as it does not.

use proptest::prelude::*;

use super::*;
use crate::{DType, TensorStorage};

fn file(version: u8, dictionary: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[version, 0]);
    match version {
        1 => bytes.extend_from_slice(&(dictionary.len() as u16).to_le_bytes()),
        _ => bytes.extend_from_slice(&(dictionary.len() as u32).to_le_bytes()),
    }
    bytes.extend_from_slice(dictionary.as_bytes());
    bytes.extend_from_slice(data);
    bytes
}

fn header(dictionary: &str) -> Result<NpyHeader, NpyError> {
    NpyHeader::parse(&file(1, dictionary, &[]))
}

#[test]
fn headers_of_all_versions_are_read() {
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n";
    for (version, prefix) in [(1, 10), (2, 12), (3, 12)] {
        let header = NpyHeader::parse(&file(version, text, &[])).unwrap();
        assert_eq!(header.dtype, DType::F32);
        assert_eq!(header.shape, [3, 4]);
        assert!(!header.fortran_order && !header.big_endian);
        assert_eq!(header.data_start, prefix + text.len() as u64);
        assert_eq!(header.len_bytes(), 48);
    }
}

#[test]
fn each_plain_type_is_known() {
    for (descr, dtype, big_endian) in [
        ("|b1", DType::Bool, false),
        ("|u1", DType::U8, false),
        (">i1", DType::I8, false),
        ("<u2", DType::U16, false),
        (">i2", DType::I16, true),
        ("<u4", DType::U32, false),
        (">i4", DType::I32, true),
        ("=u8", DType::U64, false),
        (">i8", DType::I64, true),
        ("f2", DType::F16, false),
        (">f4", DType::F32, true),
        ("<f8", DType::F64, false),
        (">c8", DType::C64, true),
    ] {
        let text = format!("{{\"shape\": (), 'descr': '{descr}', 'fortran_order': True}}");
        let header = header(&text).unwrap();
        assert_eq!(
            (header.dtype, header.big_endian),
            (dtype, big_endian),
            "{descr}"
        );
        assert!(header.shape.is_empty());
    }
    for descr in [
        "<c16", "|O", "<U3", "|S8", "<M8[ns]", "|V2", "<f16", "", "é4", "<",
    ] {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,)}}");
        assert!(
            matches!(header(&text), Err(NpyError::ElementType { .. })),
            "{descr}"
        );
    }
}

#[test]
fn each_defect_is_refused_with_its_reason() {
    let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
    assert!(header(good).is_ok());
    for (text, reason) in [
        ("", "not a dictionary"),
        ("{'descr': '<f4', 'fortran_order': False}", "no shape"),
        ("{'descr': '<f4', 'shape': ()}", "no fortran_order"),
        ("{'shape': (), 'fortran_order': False}", "no descr"),
        (
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
            "twice",
        ),
        (
            "{'descr': '<f4', 'fortran_order': 1, 'shape': ()}",
            "neither True",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}",
            "tuple",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
            "tuple",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,",
            "tuple",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "tuple",
        ),
        (
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}",
            "fields",
        ),
        (
            "{'descr': 'a\\'b', 'fortran_order': False, 'shape': ()}",
            "escape",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': (), 'more': 1}",
            "none of the format",
        ),
        (
            "{'descr': '<f4' 'fortran_order': False, 'shape': ()}",
            "comma",
        ),
        (
            "{'descr': '<f4', 'fortran_order': False, 'shape': ()} x",
            "follows",
        ),
        ("{'descr': '<f4", "does not end"),
    ] {
        let error = header(text).unwrap_err().to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let nested = format!("{{'descr': {}", "(".repeat(60_000));
    assert!(header(&nested).is_err());
}

#[test]
fn lengths_are_checked_before_they_are_used() {
    let long = file(2, "", &[]);
    let mut claims = long.clone();
    claims.truncate(8);
    claims.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        NpyHeader::parse(&claims),
        Err(NpyError::HeaderTooLarge { .. })
    ));
    let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296)}";
    assert!(matches!(header(huge), Err(NpyError::SizeOverflow { .. })));
    let zero = "{'descr': '<f8', 'fortran_order': False, 'shape': (18446744073709551615, 2, 0)}";
    assert!(matches!(header(zero), Err(NpyError::SizeOverflow { .. })));
    let text = "{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,)}";
    let terabyte = TensorStorage::from_vec(file(1, text, &[0; 9]));
    assert!(matches!(
        NpyFile::from_storage(terabyte),
        Err(NpyError::DataLength { found_bytes: 9, .. })
    ));
}

#[test]
fn views_have_the_shape_of_the_array() {
    let text = "{'descr': '<u2', 'fortran_order': True, 'shape': (2, 3), }";
    let data: Vec<u8> = [1_u16, 4, 2, 5, 3, 6]
        .into_iter()
        .flat_map(u16::to_le_bytes)
        .collect();
    let fortran = NpyFile::from_storage(TensorStorage::from_vec(file(1, text, &data))).unwrap();
    let tensor = fortran.tensor().unwrap();
    assert_eq!(tensor.shape(), [2, 3]);
    assert_eq!(tensor.to_vec::<u16>().unwrap(), [1, 2, 3, 4, 5, 6]);
    let text = "{'descr': '<u2', 'fortran_order': True, 'shape': (), }";
    let scalar = NpyFile::from_storage(TensorStorage::from_vec(file(1, text, &[7, 0]))).unwrap();
    assert_eq!(scalar.tensor().unwrap().to_vec::<u16>().unwrap(), [7]);
    let text = "{'descr': '<u2', 'fortran_order': False, 'shape': (4, 0), }";
    let empty = NpyFile::from_storage(TensorStorage::from_vec(file(1, text, &[]))).unwrap();
    assert_eq!(empty.tensor().unwrap().shape(), [4, 0]);
    let text = "{'descr': '>u2', 'fortran_order': False, 'shape': (1,), }";
    let big = NpyFile::from_storage(TensorStorage::from_vec(file(1, text, &[0, 7]))).unwrap();
    assert!(matches!(big.tensor(), Err(NpyError::BigEndian)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let whole = [&MAGIC[..], &bytes].concat();
        drop(NpyHeader::parse(&whole));
        drop(NpyFile::from_storage(TensorStorage::from_vec(whole)));
    }

    #[test]
    fn any_cut_and_any_changed_byte_is_read_or_refused(at in 0_usize..70, byte: u8) {
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n";
        let mut whole = file(1, text, &[0; 8]);
        prop_assert!(NpyFile::from_storage(TensorStorage::from_vec(whole[..at].to_vec())).is_err());
        if let Some(changed) = whole.get_mut(at) {
            *changed = byte;
        }
        drop(NpyFile::from_storage(TensorStorage::from_vec(whole)));
    }
}
