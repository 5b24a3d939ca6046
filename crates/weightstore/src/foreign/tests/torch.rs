//! `state_dict` files.

use proptest::prelude::*;

use super::pack::Pack;
use super::pickles::Pickle;
use super::{refusal, tensor, whole};
use crate::{ByteSource, ForeignFile, ModelFormat, WeightError};

const FLOATS: &str = "torch.FloatStorage";

fn numbers(count: u8) -> Vec<u8> {
    (0..count)
        .flat_map(|i| f32::from(i).to_le_bytes())
        .collect()
}

fn archive(pickle: Pickle, storages: &[(&str, &[u8])]) -> Vec<u8> {
    let pack = Pack::default().stored("m/data.pkl", &pickle.finish());
    let pack = storages.iter().fold(pack, |pack, (key, bytes)| {
        pack.stored(&format!("m/data/{key}"), bytes)
    });
    pack.stored("m/version", b"3\n").finish()
}

/// A dictionary of one tensor.
fn single(storage: (&str, &str, i64), offset: i64, shape: &[i64], strides: &[i64]) -> Pickle {
    Pickle::new()
        .begin()
        .text("w")
        .tensor(storage, offset, shape, strides)
        .end()
}

#[test]
fn tensors_are_views_of_their_storages() {
    let twelve = (FLOATS, "0", 12);
    let pickle = Pickle::new()
        .begin()
        .text("plain")
        .tensor(twelve, 0, &[3, 4], &[4, 1])
        .text("transposed")
        .tensor(twelve, 0, &[4, 3], &[1, 4])
        .text("row")
        .tensor(twelve, 4, &[4], &[1])
        .text("column")
        .tensor(twelve, 2, &[3], &[4])
        .text("scalar")
        .tensor(twelve, 11, &[], &[])
        .text("none")
        .tensor(twelve, 12, &[0, 5], &[5, 1])
        .text("expanded")
        .tensor(twelve, 3, &[2, 3], &[0, 0])
        .text("one")
        .tensor(twelve, 3, &[1, 1, 2], &[99, 77, 1])
        .text("bytes")
        .tensor(("torch.ByteStorage", "1", 3), 1, &[2], &[1])
        .end();
    let file = archive(pickle, &[("0", &numbers(12)), ("1", &[7, 8, 9])]);
    let file = ForeignFile::open("pytorch_model.bin", file).unwrap();
    assert_eq!(
        (file.format(), file.name().as_str()),
        (ModelFormat::Torch, "pytorch_model.safetensors")
    );
    assert_eq!(file.header().metadata()["format"], "pt");
    let floats = |numbers: &[f32]| {
        numbers
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let bytes = whole(&file).unwrap();
    assert_eq!(tensor(&file, "plain"), numbers(12));
    let transposed = floats(&[0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]);
    assert_eq!(tensor(&file, "transposed"), transposed);
    assert_eq!(tensor(&file, "row"), floats(&[4., 5., 6., 7.]));
    assert_eq!(tensor(&file, "column"), floats(&[2., 6., 10.]));
    assert_eq!(tensor(&file, "scalar"), floats(&[11.]));
    assert_eq!(tensor(&file, "expanded"), floats(&[3.; 6]));
    assert_eq!(tensor(&file, "one"), floats(&[3., 4.]));
    assert_eq!(tensor(&file, "bytes"), [8, 9]);
    assert_eq!(file.header().get("none").unwrap().shape, [0, 5]);
    file.version().unwrap();
    for start in 0..bytes.len() {
        let end = (start + 11).min(bytes.len());
        let mut part = vec![0; end - start];
        file.read_exact_at(start as u64, &mut part).unwrap();
        assert_eq!(part, bytes[start..end]);
    }
}

#[test]
fn nested_checkpoints_are_named_by_path() {
    let storage = (FLOATS, "0", 2);
    let pickle = Pickle::new()
        .op(b'}')
        .op(b'(')
        .text("epoch")
        .int(3)
        .text("model")
        .begin()
        .text("fc.bias")
        .tensor(storage, 0, &[2], &[1])
        .end()
        // Attributes of the dictionary, which `state_dict` has.
        .op(b'}')
        .text("_metadata")
        .op(b'}')
        .op(b's')
        .op(b'b')
        .text("moments")
        .op(b']')
        .op(b'(')
        .tensor(storage, 1, &[1], &[1])
        .op(b'N')
        .op(b'e')
        .op(b'u');
    let file = ForeignFile::open("x.ckpt", archive(pickle, &[("0", &numbers(2))])).unwrap();
    assert_eq!(tensor(&file, "model.fc.bias"), numbers(2));
    assert_eq!(tensor(&file, "moments.0"), 1_f32.to_le_bytes());
    assert_eq!(file.skipped_values(), 2);
    let alone = Pickle::new().tensor(storage, 0, &[2], &[1]);
    let file = ForeignFile::open("mask.pt", archive(alone, &[("0", &numbers(2))])).unwrap();
    assert_eq!(tensor(&file, "mask"), numbers(2));
}

#[test]
fn parameters_and_untyped_storages_are_tensors() {
    let hooks = |pickle: Pickle| {
        pickle
            .global("collections", "OrderedDict")
            .op(b')')
            .op(b'R')
    };
    let parameter = Pickle::new().begin().text("p");
    let parameter = parameter
        .global("torch._utils", "_rebuild_parameter")
        .tensor((FLOATS, "0", 2), 0, &[2], &[1])
        .op(0x88);
    let pickle = hooks(parameter).op(0x87).op(b'R').text("f8");
    let pickle = pickle
        .global("torch._utils", "_rebuild_tensor_v3")
        .op(b'(')
        .storage("torch.storage.UntypedStorage", "1", 3)
        .int(0)
        .ints(&[3])
        .ints(&[1])
        .op(0x89);
    let pickle = hooks(pickle)
        .global("torch", "float8_e4m3fn")
        .op(b't')
        .op(b'R')
        .end();
    let file = archive(pickle, &[("0", &numbers(2)), ("1", &[1, 2, 3])]);
    let file = ForeignFile::open("m.pt", file).unwrap();
    assert_eq!(tensor(&file, "p"), numbers(2));
    assert_eq!(tensor(&file, "f8"), [1, 2, 3]);
    assert_eq!(
        file.header().get("f8").unwrap().dtype,
        core_view::DType::F8E4M3
    );
}

#[test]
fn big_endian_archives_are_turned() {
    let pickle = single((FLOATS, "0", 2), 0, &[2], &[1]).finish();
    let turned: Vec<u8> = [0_f32, 1.0].iter().flat_map(|x| x.to_be_bytes()).collect();
    let of = |order: &[u8]| {
        Pack::default()
            .stored("a/data.pkl", &pickle)
            .stored("a/byteorder", order)
            .stored("a/data/0", &turned)
            .finish()
    };
    let file = ForeignFile::open("m.pt", of(b"big")).unwrap();
    assert_eq!(tensor(&file, "w"), numbers(2));
    assert!(refusal("m.pt", of(b"middle")).contains("byte order"));
}

#[test]
fn nothing_in_a_pickle_is_run() {
    let arguments = |pickle: Pickle| pickle.op(b'(').text("touch /tmp/x").op(b't').op(b'R');
    for (module, name) in [
        ("os", "system"),
        ("builtins", "eval"),
        ("posix", "system"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_wrapper_subclass"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        let pickle = arguments(Pickle::new().global(module, name));
        let reason = refusal("m.pt", archive(pickle, &[]));
        assert!(reason.contains(&format!("{module}.{name}")), "{reason}");
        let pickle = Pickle::new().text(module).text(name).op(0x93);
        assert!(refusal("m.pt", archive(arguments(pickle), &[])).contains(name));
    }
    // Instances, extensions, persistent ids as text, and instructions that are none.
    for opcode in [
        b'i', b'o', 0x81, 0x92, 0x82, 0x83, b'P', b'2', b'I', b'V', 0x8B, 0x97, 0xFF,
    ] {
        let pickle = Pickle::new().op(b'N').op(b')').op(opcode);
        let reason = refusal("m.pt", archive(pickle, &[]));
        assert!(reason.contains("instruction"), "{opcode:#x}: {reason}");
    }
}

#[test]
fn tensors_that_reach_beyond_their_storage_are_refused() {
    let twelve = (FLOATS, "0", 12);
    let of = |pickle: Pickle| refusal("m.pt", archive(pickle, &[("0", &numbers(12))]));
    for (offset, shape, strides) in [
        (0, &[13][..], &[1][..]),
        (1, &[12], &[1]),
        (0, &[3, 4], &[5, 1]),
        (0, &[2], &[i64::MAX]),
        (i64::MAX, &[1], &[1]),
        (0, &[i64::MAX, i64::MAX], &[i64::MAX, i64::MAX]),
    ] {
        let reason = of(single(twelve, offset, shape, strides));
        assert!(reason.contains("beyond"), "{shape:?}: {reason}");
    }
    assert!(of(single(twelve, 0, &[1 << 40], &[0])).contains("far more elements"));
    assert!(of(single(twelve, 0, &[-1], &[1])).contains("arguments"));
    assert!(of(single(twelve, 0, &[1], &[-1])).contains("arguments"));
    assert!(of(single(twelve, 0, &[1, 1], &[1])).contains("arguments"));
    assert!(of(single((FLOATS, "1", 12), 0, &[1], &[1])).contains("not in the archive"));
    assert!(of(single((FLOATS, "0", 13), 0, &[1], &[1])).contains("claims others"));
    assert!(of(single((FLOATS, "0", i64::MAX), 0, &[1], &[1])).contains("claims others"));
    assert!(of(single(("torch.QInt8Storage", "0", 12), 0, &[1], &[1])).contains("torch.qint8"));
}

/// A call of what `torch` names for a tensor of two floats, with more arguments behind those of every tensor.
fn rebuilt(function: &str, more: impl Fn(Pickle) -> Pickle) -> Pickle {
    let pickle = Pickle::new()
        .begin()
        .text("w")
        .global("torch._utils", function)
        .op(b'(')
        .storage(FLOATS, "0", 2)
        .int(0)
        .ints(&[2])
        .ints(&[1])
        .op(0x89)
        .op(b'N');
    more(pickle).op(b't').op(b'R').end()
}

#[test]
fn views_that_change_when_they_are_read_are_refused() {
    let of = |flags: Pickle| archive(flags, &[("0", &numbers(2))]);
    let plain = rebuilt("_rebuild_tensor_v2", |pickle| pickle.op(b'}'));
    let file = ForeignFile::open("m.pt", of(plain)).unwrap();
    assert_eq!(tensor(&file, "w"), numbers(2));
    let negated = |pickle: Pickle| pickle.op(b'}').text("neg").op(0x88).op(b's');
    let reason = refusal("m.pt", of(rebuilt("_rebuild_tensor_v2", negated)));
    assert!(
        reason.contains("\"w\"") && reason.contains("resolve_neg"),
        "{reason}"
    );
    let negated = |pickle: Pickle| negated(pickle.global("torch", "float32"));
    assert!(refusal("m.pt", of(rebuilt("_rebuild_tensor_v3", negated))).contains("resolve_neg"));
    let odd = rebuilt("_rebuild_tensor_v2", |pickle| pickle.op(b'N'));
    assert!(refusal("m.pt", of(odd)).contains("arguments"));
}

#[test]
fn tensors_of_other_kinds_are_refused_by_name() {
    let of = |pickle: Pickle| refusal("m.pt", archive(pickle, &[("0", &numbers(2))]));
    for (function, advice) in [
        ("_rebuild_qtensor", "dequantize"),
        ("_rebuild_sparse_tensor", "to_dense"),
        ("_rebuild_sparse_csr_tensor", "to_dense"),
        ("_rebuild_nested_tensor", "parts"),
        ("_rebuild_meta_tensor_no_storage", "no values"),
    ] {
        let reason = of(rebuilt(function, |pickle| pickle));
        assert!(
            reason.contains("\"w\"") && reason.contains(advice),
            "{reason}"
        );
    }
    for name in ["complex32", "bits8", "uint4"] {
        let typed = |pickle: Pickle| pickle.global("torch", name);
        let reason = of(rebuilt("_rebuild_tensor_v3", typed));
        assert!(reason.contains(&format!("torch.{name}")), "{reason}");
    }
}

#[test]
fn values_of_other_types_are_left_out() {
    let storage = (FLOATS, "0", 2);
    let set = Pickle::new()
        .op(b'}')
        .op(b'(')
        .text("set")
        .global("__builtin__", "set");
    let set = set
        .op(b']')
        .op(b'(')
        .int(1)
        .tensor(storage, 0, &[2], &[1])
        .op(b'e');
    let bytes = set
        .op(0x85)
        .op(b'R')
        .text("bytes")
        .global("_codecs", "encode");
    let bytes = bytes.text("\u{ff}").text("latin1").op(0x86).op(b'R');
    let counter = bytes.text("counter").global("collections", "Counter");
    let counter = counter.op(b'}').text("a").int(3).op(b's').op(0x85).op(b'R');
    let dtype = counter.text("dtype").global("torch", "complex128").op(b'u');
    let file = ForeignFile::open("m.pt", archive(dtype, &[("0", &numbers(2))])).unwrap();
    assert_eq!(file.header().tensors().len(), 1);
    assert_eq!(tensor(&file, "set.1"), numbers(2));
    assert_eq!(file.skipped_values(), 4);
}

#[test]
fn two_elements_in_a_byte_are_counted_apart() {
    let of = |shape: &[i64], strides: &[i64]| {
        let pickle = Pickle::new()
            .begin()
            .text("w")
            .global("torch._utils", "_rebuild_tensor_v3");
        let pickle = pickle
            .op(b'(')
            .storage("torch.UntypedStorage", "0", 6)
            .int(0);
        let pickle = pickle.ints(shape).ints(strides).op(0x89).op(b'N');
        let pickle = pickle
            .global("torch", "float4_e2m1fn_x2")
            .op(b't')
            .op(b'R')
            .end();
        archive(pickle, &[("0", &[1, 2, 3, 4, 5, 6])])
    };
    let file = ForeignFile::open("m.pt", of(&[2, 3], &[3, 1])).unwrap();
    let info = file.header().get("w").unwrap();
    assert_eq!(
        (info.dtype, &info.shape[..]),
        (core_view::DType::F4, &[2, 6][..])
    );
    assert_eq!(tensor(&file, "w"), [1, 2, 3, 4, 5, 6]);
    assert!(refusal("m.pt", of(&[3, 2], &[1, 3])).contains("contiguous"));
    assert!(refusal("m.pt", of(&[], &[])).contains("contiguous"));
}

#[test]
fn bytes_behind_the_last_element_belong_to_nobody() {
    let pickle = single((FLOATS, "0", 2), 0, &[2], &[1]);
    let bytes = [&numbers(2)[..], &[9, 9]].concat();
    let file = ForeignFile::open("m.pt", archive(pickle, &[("0", &bytes)])).unwrap();
    assert_eq!(tensor(&file, "w"), numbers(2));
}

#[test]
fn plain_pickles_are_refused() {
    let number = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
    for start in [&b"\x80\x02"[..], b"\x80\x04\x95\x0d\0\0\0\0\0\0\0"] {
        let file = [start, number, b"\x80\x02M\xe9\x03."].concat();
        assert!(refusal("m.pt", file).contains("before 1.6"));
    }
    let file = b"\x80\x02}q\0(X\x01\0\0\0aK\x01u.".to_vec();
    assert!(refusal("m.pkl", file).contains("torch.save"));
}

#[test]
fn checkpoints_that_are_none_are_refused() {
    let of = |pickle: Pickle| refusal("m.pt", archive(pickle, &[]));
    assert!(of(Pickle::new().op(b'}')).contains("no tensors"));
    assert!(of(Pickle::new()).contains("takes values"));
    assert!(of(Pickle::new().op(b'N').op(b'N')).contains("leaves"));
    assert!(of(Pickle::new().op(b'h').bytes(&[9])).contains("recalls"));
    assert!(of(Pickle::new().op(b'X').bytes(&u32::MAX.to_le_bytes())).contains("ends early"));
    assert!(of(Pickle::new().op(b'N').op(b'N').op(b'a')).contains("no list"));
    assert!(of(Pickle::new().op(b'N').op(b'Q')).contains("no storage"));
    // A list that contains itself.
    let cycle = Pickle::new()
        .op(b']')
        .op(b'q')
        .bytes(&[0])
        .op(b'h')
        .bytes(&[0])
        .op(b'a');
    assert!(of(cycle).contains("too deep"));
    // Thirty lists, each of the one before twice.
    let mut doubling = Pickle::new().op(b']').op(b'q').bytes(&[0]);
    for place in 1..30 {
        doubling = doubling.op(b'0').op(b']').op(b'(');
        doubling = doubling
            .op(b'h')
            .bytes(&[place - 1])
            .op(b'h')
            .bytes(&[place - 1]);
        doubling = doubling.op(b'e').op(b'q').bytes(&[place]);
    }
    assert!(of(doubling).contains("too many"));
    let program = Pack::default()
        .stored("m/data.pkl", &Pickle::new().op(b'}').finish())
        .stored("m/constants.pkl", b"")
        .finish();
    assert!(refusal("m.pt", program).contains("TorchScript"));
    let two = Pack::default()
        .stored("a/data.pkl", b"")
        .stored("b/data.pkl", b"")
        .finish();
    assert!(refusal("m.pt", two).contains("more than one"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_change_of_a_pickle_is_read_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut pickle = single((FLOATS, "0", 12), 0, &[4, 3], &[1, 4]).finish();
        for (at, byte) in changes {
            let at = at.index(pickle.len());
            pickle[at] = byte;
        }
        let file = Pack::default().stored("data.pkl", &pickle).stored("data/0", &numbers(12)).finish();
        match ForeignFile::open("m.pt", file) {
            Ok(file) => drop(whole(&file).unwrap()),
            Err(WeightError::Foreign { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn any_change_of_an_archive_is_read_or_refused(at: prop::sample::Index, byte: u8) {
        let pickle = single((FLOATS, "0", 12), 0, &[4, 3], &[1, 4]);
        let mut file = archive(pickle, &[("0", &numbers(12))]);
        let at = at.index(file.len());
        file[at] = byte;
        if let Ok(file) = ForeignFile::open("m.pt", file)
            && let Ok(bytes) = whole(&file)
            && file.version().is_ok()
        {
            // What is read without complaint has the right elements.
            let tensors: Vec<_> = file.header().tensors().to_vec();
            prop_assert_eq!(tensors.len(), 1);
            prop_assert!(bytes.len() as u64 > tensors[0].len_bytes());
        }
    }
}
