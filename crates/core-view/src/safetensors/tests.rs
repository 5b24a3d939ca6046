use proptest::prelude::*;

use super::*;
use crate::DType;

fn parse(json: &str, data_len: u64) -> Result<Header, SafetensorsError> {
    Header::parse(json.as_bytes(), data_len)
}

fn file_of(json: &[u8], data_len: usize) -> Vec<u8> {
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json);
    file.resize(file.len() + data_len, 0);
    file
}

fn read(file: &[u8]) -> Result<Header, SafetensorsError> {
    Header::read(&mut &file[..], file.len() as u64)
}

const PAIR: &str = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
    "__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[2,2],"data_offsets":[0,4]}}   "#;

#[test]
fn a_header_is_read_and_kept_verbatim() {
    let file = file_of(PAIR.as_bytes(), 12);
    let mut reader = &file[..];
    let header = Header::read(&mut reader, file.len() as u64).unwrap();
    assert_eq!(reader.len(), 12);
    assert_eq!(header.raw(), &file[..file.len() - 12]);
    assert_eq!(
        (header.data_start(), header.data_len()),
        (file.len() as u64 - 12, 12)
    );
    let names: Vec<_> = header
        .tensors()
        .iter()
        .map(|info| info.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    let b = header.get("b").unwrap();
    assert_eq!(
        (b.dtype, b.shape.as_slice(), b.start, b.end),
        (DType::F32, &[2][..], 4, 12)
    );
    assert_eq!(b.len_bytes(), 8);
    assert!(header.get("c").is_none());
    assert_eq!(
        header.metadata().get("format").map(String::as_str),
        Some("pt")
    );
    assert_eq!(header, parse(PAIR, 12).unwrap());
}

#[test]
fn scalars_empty_tensors_and_high_ranks_are_tensors() {
    let header = parse(
        r#"{"empty":{"dtype":"F64","shape":[3,0],"data_offsets":[2,2]},
            "scalar":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},
            "end":{"dtype":"I8","shape":[0],"data_offsets":[3,3]},
            "start":{"dtype":"I8","shape":[0],"data_offsets":[0,0]},
            "deep":{"dtype":"BOOL","shape":[1,1,1,1,1,1,1,1,1,1,1,1],"data_offsets":[2,3]}}"#,
        3,
    )
    .unwrap();
    assert_eq!(header.tensors().len(), 5);
    assert_eq!(header.get("deep").unwrap().shape.len(), 12);
    assert_eq!(header.get("empty").unwrap().len_bytes(), 0);
    assert!(parse("{}", 0).unwrap().tensors().is_empty());
    assert!(
        parse(r#"{"__metadata__":null}"#, 0)
            .unwrap()
            .metadata()
            .is_empty()
    );
}

#[test]
fn every_type_of_the_format_is_known() {
    for dtype in DType::all() {
        let len = dtype.len_bytes(8).unwrap();
        let json = format!(r#"{{"t":{{"dtype":"{dtype}","shape":[8],"data_offsets":[0,{len}]}}}}"#);
        assert_eq!(parse(&json, len as u64).unwrap().tensors()[0].dtype, dtype);
    }
}

/// A text, the length of the data section, and the error that names what is wrong.
type Malformed = (
    &'static str,
    u64,
    fn(&SafetensorsError) -> bool,
    &'static [&'static str],
);

macro_rules! is {
    ($pattern:pat) => {
        |error| matches!(error, $pattern)
    };
}

use SafetensorsError as E;

const MALFORMED: &[Malformed] = &[
    ("", 0, is!(E::NotAnObject), &[]),
    ("  {}", 0, is!(E::NotAnObject), &[]),
    ("[]", 0, is!(E::NotAnObject), &[]),
    ("{", 0, is!(E::Json { .. }), &["header"]),
    ("{} x", 0, is!(E::Json { .. }), &["header"]),
    (r#"{"t":7}"#, 0, is!(E::Json { .. }), &["\"t\""]),
    (
        r#"{"t":{"dtype":"U8","shape":[1]}}"#,
        1,
        is!(E::Json { .. }),
        &["\"t\"", "data_offsets"],
    ),
    (
        r#"{"t":{"dtype":"U8","data_offsets":[0,1]}}"#,
        1,
        is!(E::Json { .. }),
        &["\"t\"", "shape"],
    ),
    (
        r#"{"t":{"shape":[1],"data_offsets":[0,1]}}"#,
        1,
        is!(E::Json { .. }),
        &["\"t\"", "dtype"],
    ),
    (
        r#"{"t":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#,
        1,
        is!(E::Json { .. }),
        &["\"t\"", "dtype twice"],
    ),
    (
        r#"{"t":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#,
        1,
        is!(E::Json { .. }),
        &["-1"],
    ),
    (
        r#"{"t":{"dtype":"U8","shape":[1.5],"data_offsets":[0,1]}}"#,
        1,
        is!(E::Json { .. }),
        &["1.5"],
    ),
    (
        r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0]}}"#,
        1,
        is!(E::Json { .. }),
        &[],
    ),
    (
        r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}}"#,
        1,
        is!(E::Json { .. }),
        &[],
    ),
    (
        r#"{"__metadata__":{"a":1}}"#,
        0,
        is!(E::Json { .. }),
        &["string"],
    ),
    (
        r#"{"__metadata__":{"a":"1","a":"2"}}"#,
        0,
        is!(E::DuplicateName { .. }),
        &["\"a\"", "metadata"],
    ),
    (
        r#"{"__metadata__":{},"__metadata__":{}}"#,
        0,
        is!(E::DuplicateName { .. }),
        &["__metadata__"],
    ),
    (
        r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "\u0074":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#,
        2,
        is!(E::DuplicateName { .. }),
        &["\"t\"", "header"],
    ),
    (
        r#"{"t":{"dtype":"F128","shape":[1],"data_offsets":[0,16]}}"#,
        16,
        is!(E::UnknownDType { .. }),
        &["\"t\"", "F128", "BF16"],
    ),
    (
        r#"{"t":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}}"#,
        1,
        is!(E::SizeOverflow { .. }),
        &["\"t\"", "4294967296"],
    ),
    (
        r#"{"t":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}}"#,
        0,
        is!(E::SizeOverflow { .. }),
        &["\"t\"", "F64"],
    ),
    (
        r#"{"t":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}"#,
        2,
        is!(E::PartialByte { bits: 12, .. }),
        &["\"t\"", "12 bits"],
    ),
    (
        r#"{"t":{"dtype":"U8","shape":[0],"data_offsets":[5,4]}}"#,
        5,
        is!(E::InvertedRange {
            start: 5,
            end: 4,
            ..
        }),
        &["\"t\"", "5", "4"],
    ),
    (
        r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,7]}}"#,
        7,
        is!(E::SizeMismatch {
            expected_bytes: 8,
            found_bytes: 7,
            ..
        }),
        &["\"t\"", "8", "7"],
    ),
    (
        r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,9]}}"#,
        9,
        is!(E::SizeMismatch {
            expected_bytes: 8,
            found_bytes: 9,
            ..
        }),
        &["\"t\"", "8", "9"],
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
            "b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}}"#,
        7,
        is!(E::Overlap {
            start: 3,
            previous_end: 4,
            ..
        }),
        &["\"a\"", "\"b\""],
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
            "b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}"#,
        9,
        is!(E::Hole {
            start: 5,
            expected_start: 4,
            ..
        }),
        &["\"b\"", "no hole"],
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[1,5]}}"#,
        5,
        is!(E::Hole {
            start: 1,
            expected_start: 0,
            ..
        }),
        &["\"a\""],
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
            "b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#,
        7,
        is!(E::DataTruncated {
            expected_bytes: 8,
            found_bytes: 7,
            ..
        }),
        &["\"b\"", "truncated", "8", "7"],
    ),
    (
        r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#,
        6,
        is!(E::TrailingBytes {
            expected_bytes: 4,
            found_bytes: 6
        }),
        &["4", "6"],
    ),
    (
        "{}",
        1,
        is!(E::TrailingBytes {
            expected_bytes: 0,
            found_bytes: 1
        }),
        &[],
    ),
];

/// The message with those of its causes.
fn full_message(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", full_message(source)),
        None => error.to_string(),
    }
}

#[test]
fn each_defect_has_its_error_and_the_message_names_the_facts() {
    for (json, data_len, expected, facts) in MALFORMED {
        let error = parse(json, *data_len).unwrap_err();
        assert!(expected(&error), "{json}: {error:?}");
        let message = full_message(&error);
        for fact in *facts {
            assert!(message.contains(fact), "{json}: {message} lacks {fact}");
        }
    }
}

#[test]
fn a_damaged_start_has_its_error() {
    for len in 0..8 {
        assert!(
            matches!(read(&vec![0; len]), Err(E::TooShort { found_bytes }) if found_bytes == len as u64)
        );
    }
    assert!(matches!(read(&[0; 8]), Err(E::NotAnObject)));
    assert!(matches!(
        read(&[0xff; 64]),
        Err(E::HeaderTooLarge {
            claimed_bytes: u64::MAX,
            ..
        })
    ));
    let mut file = file_of(b"{}", 0);
    file[0] = 3;
    assert!(matches!(
        read(&file),
        Err(E::HeaderTruncated {
            expected_bytes: 3,
            found_bytes: 2
        })
    ));
    assert!(matches!(
        Header::read(&mut &file[..], 1 << 40),
        Err(E::HeaderTruncated {
            expected_bytes: 3,
            found_bytes: 2
        })
    ));
    let not_text = read(&file_of(b"{\"\xff\":1}", 0)).unwrap_err();
    assert!(
        matches!(not_text, E::NotUtf8 { offset_bytes: 2 }),
        "{not_text}"
    );
}

#[test]
fn a_failing_reader_is_an_error() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("broken"))
        }
    }
    assert!(matches!(Header::read(&mut Failing, 100), Err(E::Io { .. })));
}

#[test]
fn the_builder_refuses_what_the_parser_would() {
    let build = |name: &str, dtype, shape: &[u64]| {
        HeaderBuilder::new()
            .tensor("t", DType::U8, &[1])
            .tensor(name, dtype, shape)
            .build()
    };
    assert!(matches!(
        build("t", DType::U8, &[1]),
        Err(E::DuplicateName { .. })
    ));
    assert!(matches!(
        build("__metadata__", DType::U8, &[1]),
        Err(E::ReservedName { .. })
    ));
    assert!(matches!(
        build("u", DType::F4, &[1]),
        Err(E::PartialByte { .. })
    ));
    assert!(matches!(
        build("u", DType::U8, &[u64::MAX]),
        Err(E::SizeOverflow { .. })
    ));
}

#[test]
fn an_index_names_files_beside_it() {
    let index = ShardIndex::parse(
        br#"{"metadata":{"total_size":10,"x":[1]},"weight_map":{"b":"2.st","a":"1.st","c":"2.st"},"y":1}"#,
    )
    .unwrap();
    assert_eq!(index.shard_of("b"), Some("2.st"));
    assert_eq!(index.shards().collect::<Vec<_>>(), ["1.st", "2.st"]);
    assert_eq!(index.tensors().len(), 3);
    assert_eq!(index.total_size_bytes(), Some(10));
    for shard in ["", ".", "..", "../x", "/x", "a/b", r"a\\b", r"a\u0000"] {
        let json = format!(r#"{{"weight_map":{{"t":"{shard}"}}}}"#);
        assert!(
            matches!(ShardIndex::parse(json.as_bytes()), Err(E::ShardName { .. })),
            "{shard}"
        );
    }
    assert!(matches!(
        ShardIndex::parse(br#"{"metadata":{}}"#),
        Err(E::Json { .. })
    ));
    assert!(matches!(
        ShardIndex::parse(br#"{"weight_map":{"t":"a","t":"b"}}"#),
        Err(E::DuplicateName { .. })
    ));
}

fn any_tensors() -> impl Strategy<Value = Vec<(String, DType, Vec<u64>)>> {
    let dtypes: Vec<DType> = DType::all().collect();
    let shape = prop::collection::vec(0_u64..5, 0..10);
    let one = (any::<String>(), prop::sample::select(dtypes), shape);
    prop::collection::vec(one, 0..12)
}

proptest! {
    #[test]
    fn what_the_builder_writes_is_read_back(
        tensors in any_tensors(),
        metadata in prop::collection::btree_map(any::<String>(), any::<String>(), 0..4),
    ) {
        let mut builder = HeaderBuilder::new();
        for (key, value) in &metadata {
            builder = builder.metadata(key.clone(), value.clone());
        }
        for (index, (name, dtype, mut shape)) in tensors.into_iter().enumerate() {
            shape.push(4);
            builder = builder.tensor(format!("{name}{index}"), dtype, &shape);
        }
        let built = builder.build().unwrap();
        prop_assert!(built.raw().len().is_multiple_of(8));
        let mut file = built.raw().to_vec();
        file.resize(file.len() + built.data_len() as usize, 0);
        let read = read(&file).unwrap();
        prop_assert_eq!(&read, &built);
        prop_assert_eq!(read.metadata(), &metadata);
        for info in read.tensors() {
            prop_assert_eq!(read.get(&info.name), Some(info));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(file in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&file);
        let _ = Header::parse(&file, 17);
        let _ = ShardIndex::parse(&file);
    }

    #[test]
    fn any_damage_is_read_or_refused_and_what_is_read_tiles(
        at in 0_usize..PAIR.len(),
        byte in any::<u8>(),
        cut in 0_usize..PAIR.len() + 20,
    ) {
        let mut file = file_of(PAIR.as_bytes(), 12);
        file[8 + at] = byte;
        file.truncate(file.len() - cut);
        if let Ok(header) = read(&file) {
            let mut covered = 0;
            for info in header.tensors() {
                prop_assert_eq!(info.start, covered);
                covered = info.end;
            }
            prop_assert_eq!(covered, header.data_len());
            prop_assert_eq!(covered + header.data_start(), file.len() as u64);
        }
    }
}
