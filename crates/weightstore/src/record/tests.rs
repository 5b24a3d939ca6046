use core_view::DType;
use proptest::prelude::*;

use super::*;
use crate::ChunkEncoding;
use crate::identity::{CHUNK_LEN_BYTES, leaf_digest};
use crate::metadata::Label;
use crate::{CoralAlias, Delta, DeltaKind, SketchPlace, WeightHash};

const ALIAS: CoralAlias = CoralAlias::from_u64(0x0123_4567_89ab_cdef);

fn chunk(codec: ChunkEncoding, encoded_len: u32) -> ChunkEntry {
    ChunkEntry {
        leaf: leaf_digest(&encoded_len.to_le_bytes()),
        encoded_len,
        codec,
    }
}

fn object() -> ObjectRecord {
    ObjectRecord {
        dtype: DType::BF16,
        shape: vec![2, CHUNK_LEN_BYTES as u64],
        alias: ALIAS,
        base: None,
        body: Body {
            len_bytes: 4 << 20,
            place: Place::Chunks(BodyId(77)),
            chunks: vec![
                chunk(ChunkEncoding::None, 1 << 20),
                chunk(ChunkEncoding::Lz4, 5),
                chunk(ChunkEncoding::Deflate, 9),
                chunk(ChunkEncoding::None, 1 << 20),
            ],
        },
    }
}

fn inline_object() -> ObjectRecord {
    ObjectRecord {
        dtype: DType::U8,
        shape: vec![5],
        alias: ALIAS,
        base: None,
        body: Body {
            len_bytes: 5,
            place: Place::Inline(vec![1, 2, 3, 4, 5]),
            chunks: vec![chunk(ChunkEncoding::None, 5)],
        },
    }
}

fn difference_object() -> ObjectRecord {
    let mut object = object();
    object.base = Some(BaseLink {
        hash: WeightHash::from_bytes([8; 32]),
        depth: 3,
    });
    object.body.chunks[1].codec = ChunkEncoding::Difference;
    object
}

fn delta() -> DeltaRecord {
    let delta =
        Delta::new(DeltaKind::Sparse, DType::F32, &[9], ALIAS, vec![0_u8; 5]).with_metadata("{}");
    DeltaRecord::new(&delta, inline_object().body)
}

fn delta_hash(record: &DeltaRecord) -> WeightHash {
    let fields = record
        .clone()
        .with_payload(vec![0_u8; 0].into())
        .encode_fields();
    crate::identity::delta_root(&fields, record.body.len_bytes, &record.body.leaves())
}

fn manifest() -> Manifest {
    let files = vec![
        FileEntry {
            name: "model-1.safetensors".into(),
            len_bytes: 1 << 40,
            sha256: Some([3; 32]),
            roots: vec![
                WeightHash::from_bytes([1; 32]),
                WeightHash::from_bytes([2; 32]),
            ],
            header: b"\x02\0\0\0\0\0\0\0{}".to_vec(),
        },
        FileEntry {
            name: "model-2.safetensors".into(),
            len_bytes: 10,
            sha256: None,
            roots: Vec::new(),
            header: b"\x02\0\0\0\0\0\0\0{}".to_vec(),
        },
    ];
    Manifest {
        content_hash: Manifest::hash_files(&files),
        files,
        index: "{}".into(),
        metadata: vec![("origin".into(), "test".into())],
    }
}

fn label() -> Label {
    Label {
        name: "w".into(),
        layer_type: None,
        model_name: Some("m".into()),
        compression_info: "{}".into(),
    }
}

#[test]
fn records_round_trip() {
    for object in [object(), inline_object(), difference_object()] {
        let root = object.root();
        assert_eq!(
            ObjectRecord::parse(&object.encode(), &root, ALIAS),
            Ok(object)
        );
    }
    let record = delta();
    let parsed = DeltaRecord::parse(&record.encode(), &delta_hash(&record)).unwrap();
    assert_eq!(parsed.encode(), record.encode());
    assert_eq!(Manifest::parse(&manifest().encode()), Ok(manifest()));
    let encoded = LabelRecord::encode(&label());
    assert_eq!(
        LabelRecord::parse(&encoded, &LabelRecord::digest(&encoded)),
        Ok(label())
    );
    for has_bases in [false, true] {
        let record = StoreRecord { has_bases };
        assert_eq!(StoreRecord::parse(&record.encode()), Ok(record));
    }
    let reserved = BodyReservation::encode(BodyId(9));
    assert_eq!(BodyReservation::parse(&reserved), Ok(BodyId(9)));
    for next in [0, 1 << 63, u64::MAX] {
        let reserved = BodyReservation::encode(BodyId(next));
        assert!(BodyReservation::parse(&reserved).is_err(), "{next}");
    }
}

#[test]
fn keys_round_trip() {
    let hash = WeightHash::from_bytes(std::array::from_fn(|i| i as u8));
    for key in [
        Key::Format,
        Key::Bodies,
        Key::Object(hash, ALIAS),
        Key::Chunk(BodyId(u64::MAX), 7),
        Key::Hint([5; 16], hash),
        Key::Label {
            hash,
            number: 3,
            digest: [4; 16],
        },
        Key::Delta(hash),
        Key::Model("org/模型".into()),
        Key::Sketch(
            SketchPlace {
                dtype: *b"F8_E4M3Z",
                row: 5,
                size_log2: 12,
                signs: u64::MAX - 3,
            },
            hash,
        ),
        Key::BaseLink {
            base: WeightHash::from_bytes([7; 32]),
            hash,
        },
    ] {
        let encoded = key.encode();
        assert_eq!(Key::parse(&encoded), Some(key.clone()));
        if !matches!(key, Key::Model(_)) {
            assert_eq!(Key::parse(&[&encoded[..], b"x"].concat()), None);
            assert_eq!(Key::parse(&encoded[..encoded.len() - 1]), None);
        }
    }
    assert_eq!(Key::parse(b"x/"), None);
    assert_eq!(Key::parse(b"m/\xff"), None);
}

/// No single flipped bit, cut or added byte leaves a record that proves itself.
fn every_change_is_refused(encoded: &[u8], parse: impl Fn(&[u8]) -> bool) {
    assert!(parse(encoded));
    for bit in 0..8 * encoded.len() {
        let mut flipped = encoded.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!parse(&flipped), "bit {bit}");
    }
    for len in 0..encoded.len() {
        assert!(!parse(&encoded[..len]), "cut to {len}");
    }
    assert!(!parse(&[encoded, &[0]].concat()));
}

#[test]
fn uses_and_system_records_refuse_every_change() {
    let encoded = LabelRecord::encode(&label());
    let digest = LabelRecord::digest(&encoded);
    every_change_is_refused(&encoded, |bytes| LabelRecord::parse(bytes, &digest).is_ok());
    let record = StoreRecord::default();
    every_change_is_refused(&record.encode(), |bytes| {
        StoreRecord::parse(bytes) == Ok(record)
    });
}

#[test]
fn headers_refuse_changes_of_what_the_hash_covers() {
    let object = inline_object();
    let root = object.root();
    let encoded = object.encode();
    // The inline bytes are checked against their leaf when they are read, the lengths of encoded
    // chunks when they are decoded.
    let header = &encoded[..encoded.len() - 5];
    every_change_is_refused(header, |bytes| {
        let whole = [bytes, &[1, 2, 3, 4, 5]].concat();
        ObjectRecord::parse(&whole, &root, ALIAS).is_ok()
    });
}

#[test]
fn versions_and_features_to_come_are_told_apart_from_damage() {
    let mut newer = manifest().encode();
    newer[4] = 2;
    assert!(matches!(
        Manifest::parse(&newer),
        Err(RecordError::Newer(_))
    ));
    let mut featured = manifest().encode();
    featured[6] = 1;
    assert!(matches!(
        Manifest::parse(&featured),
        Err(RecordError::Newer(_))
    ));
}

#[test]
fn claimed_lengths_are_checked_before_memory_is_taken() {
    let object = object();
    let mut encoded = object.encode();
    let at = 8 + 5 + 4 + 16 + 8;
    encoded[at..at + 8].copy_from_slice(&(u64::from(u32::MAX) << 20).to_le_bytes());
    encoded[at + 16..at + 20].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = ObjectRecord::parse(&encoded, &object.root(), ALIAS);
    assert!(matches!(refused, Err(RecordError::Damaged(_))));
}

fn parse_all(bytes: &[u8]) {
    let hash = WeightHash::from_bytes([0; 32]);
    let _ = ObjectRecord::parse(bytes, &hash, ALIAS);
    let _ = DeltaRecord::parse(bytes, &hash);
    let _ = Manifest::parse(bytes);
    let _ = LabelRecord::parse(bytes, &[0; 16]);
    let _ = StoreRecord::parse(bytes);
    let _ = BodyReservation::parse(bytes);
    let _ = Key::parse(bytes);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        parse_all(&bytes);
    }

    #[test]
    fn damaged_records_never_panic(
        which in 0_usize..4,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = match which {
            0 => object().encode(),
            1 => inline_object().encode(),
            2 => delta().encode(),
            _ => manifest().encode(),
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        parse_all(&bytes);
        bytes.truncate(cut.index(bytes.len() + 1));
        parse_all(&bytes);
    }
}
