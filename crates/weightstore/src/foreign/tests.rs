//! Files of other formats, right ones and all kinds of wrong ones.

mod pack;
mod pickles;
mod torch;

use std::sync::atomic::{AtomicU64, Ordering};

use core_view::DType;
use core_view::safetensors::Header;

use super::*;
use pack::{Pack, npy};

/// All that a file reads as, checked against its own header.
fn whole(file: &ForeignFile<impl ByteSource>) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.len_bytes()? as usize];
    file.read_exact_at(0, &mut bytes)?;
    let header = Header::read(&mut &bytes[..], bytes.len() as u64).unwrap();
    assert_eq!(header, file.header);
    Ok(bytes)
}

/// The bytes of a tensor of a file.
fn tensor(file: &ForeignFile<impl ByteSource>, name: &str) -> Vec<u8> {
    let info = file.header().get(name).unwrap();
    let mut bytes = vec![0; info.len_bytes() as usize];
    let start = file.header().data_start() + info.start;
    file.read_exact_at(start, &mut bytes).unwrap();
    bytes
}

fn refusal(name: &str, file: Vec<u8>) -> String {
    match ForeignFile::open(name, file) {
        Ok(_) => panic!("{name} was opened"),
        Err(WeightError::Foreign { reason, .. }) => reason,
        Err(error) => panic!("{name}: {error}"),
    }
}

#[test]
fn formats_are_told_by_content() {
    let detect = |bytes: &[u8]| ModelFormat::detect("m.bin", &bytes);
    assert_eq!(detect(b"\x93NUMPY\x01\x00").unwrap(), ModelFormat::Npy);
    assert_eq!(
        detect(b"{\"weight_map\": {}}").unwrap(),
        ModelFormat::ShardIndex
    );
    assert_eq!(
        detect(b"\n {\"weight_map\": {}}").unwrap(),
        ModelFormat::ShardIndex
    );
    assert_eq!(
        detect(b"\x08\0\0\0\0\0\0\0{}      ").unwrap(),
        ModelFormat::Safetensors
    );
    // A header of 123 bytes begins with a brace as a number.
    assert_eq!(
        detect(b"{\0\0\0\0\0\0\0{\"").unwrap(),
        ModelFormat::Safetensors
    );
    assert_eq!(detect(b"").unwrap(), ModelFormat::Safetensors);
    for (bytes, word) in [
        (&b"\x89HDF\r\n\x1a\n"[..], "import-h5"),
        (b"GGUF\x03\0\0\0", "convert"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "1.6"),
        (b"PK\x03\x04 and no more", "directory"),
    ] {
        let error = detect(bytes).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let other = Pack::default().stored("readme.txt", b"hello").finish();
    assert!(
        ModelFormat::detect("m", &other)
            .unwrap_err()
            .to_string()
            .contains("neither")
    );
    assert!(refusal("m.npz", Pack::default().finish()).contains("no tensors"));
}

#[test]
fn arrays_read_as_a_safetensors_file() {
    let fortran: Vec<u8> = [1_u16, 4, 2, 5, 3, 6]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let big: Vec<u8> = [1.5_f32, -2.5]
        .iter()
        .flat_map(|x| x.to_be_bytes())
        .collect();
    let complex: Vec<u8> = [1.0_f32, 2.0]
        .iter()
        .flat_map(|x| x.to_be_bytes())
        .collect();
    for deflated in [false, true] {
        let file = Pack::default()
            .with_deflate(deflated)
            .add("a.npy", &npy("<u2", true, "(2, 3)", &fortran))
            .add("b/c.npy", &npy(">f4", false, "(2,)", &big))
            .add("scalar.npy", &npy("<i8", false, "()", &7_i64.to_le_bytes()))
            .add("none.npy", &npy("<f8", true, "(4, 0)", &[]))
            .add("z.npy", &npy(">c8", false, "(1, 1)", &complex))
            .add("yes.npy", &npy("|b1", true, "(3, 1)", &[1, 0, 1]))
            .finish();
        let file = ForeignFile::open("m.npz", file).unwrap();
        assert_eq!(
            (file.format(), file.name().as_str()),
            (ModelFormat::Npz, "m.safetensors")
        );
        let names: Vec<&str> = file
            .header()
            .tensors()
            .iter()
            .map(|info| info.name.as_str())
            .collect();
        assert_eq!(names, ["none", "scalar", "z", "b/c", "a", "yes"]);
        assert_eq!(file.header().get("z").unwrap().dtype, DType::C64);
        assert_eq!(file.header().metadata()["format"], "np");
        let bytes = whole(&file).unwrap();
        let expected = |numbers: &[u16]| {
            numbers
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect::<Vec<u8>>()
        };
        assert_eq!(tensor(&file, "a"), expected(&[1, 2, 3, 4, 5, 6]));
        assert_eq!(
            tensor(&file, "b/c"),
            [1.5_f32, -2.5].map(f32::to_le_bytes).concat()
        );
        assert_eq!(
            tensor(&file, "z"),
            [1.0_f32, 2.0].map(f32::to_le_bytes).concat()
        );
        assert_eq!(tensor(&file, "scalar"), 7_i64.to_le_bytes());
        assert_eq!(tensor(&file, "yes"), [1, 0, 1]);
        file.version().unwrap();
        // Any range is the same bytes, however it lies to elements.
        for start in 0..bytes.len() {
            for len in [1, 3, 8, 13] {
                let end = (start + len).min(bytes.len());
                let mut part = vec![0; end - start];
                file.read_exact_at(start as u64, &mut part).unwrap();
                assert_eq!(part, bytes[start..end]);
            }
        }
        assert!(file.read_exact_at(bytes.len() as u64, &mut [0]).is_err());
        assert!(file.read_exact_at(u64::MAX, &mut [0]).is_err());
    }
}

#[test]
fn one_array_has_the_name_of_its_file() {
    let file = ForeignFile::open("bias.npy", npy("<f4", false, "(2,)", &[7; 8])).unwrap();
    assert_eq!(tensor(&file, "bias"), [7; 8]);
    for (shape, data) in [("(3,)", 8), ("(1,)", 8), ("(1099511627776,)", 8)] {
        let reason = refusal("bias.npy", npy("<f4", false, shape, &vec![0; data]));
        assert!(reason.contains("8 are there"), "{reason}");
    }
    assert!(refusal("x.npy", npy("|O", false, "(1,)", &[0; 8])).contains("|O"));
}

#[test]
fn big_arrays_are_read_from_several_threads_with_little_memory() {
    // Three arrays of several chunks: what an import does with them.
    let content = |seed: u32| -> Vec<u8> {
        (0..(5 << 20) / 4 + 123)
            .flat_map(|i: u32| (i.wrapping_mul(seed) >> 9).to_le_bytes())
            .collect()
    };
    let arrays: Vec<Vec<u8>> = [3, 5, 7].map(content).to_vec();
    let mut pack = Pack::default().with_deflate(true);
    for (index, array) in arrays.iter().enumerate() {
        let shape = format!("({},)", array.len() / 4);
        pack = pack.add(&format!("{index}.npy"), &npy("<u4", false, &shape, array));
    }
    let file = ForeignFile::open("m.npz", pack.finish()).unwrap();
    let expected = arrays.concat();
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let start = next.fetch_add(1 << 20, Ordering::Relaxed) as usize;
                    let Some(rest) = expected.get(start..).filter(|rest| !rest.is_empty()) else {
                        return;
                    };
                    let mut part = vec![0; rest.len().min(1 << 20)];
                    file.read_exact_at(file.header().data_start() + start as u64, &mut part)
                        .unwrap();
                    assert!(rest.starts_with(&part), "at {start}");
                }
            });
        }
    });
    file.version().unwrap();
    assert!(file.archive.held_bytes() <= 4 << 20);
}

#[test]
fn damaged_content_is_found_by_its_checksum() {
    for deflated in [false, true] {
        let array = npy(
            "<u2",
            false,
            "(5000,)",
            &(0..10_000).map(|i| (i % 251) as u8).collect::<Vec<_>>(),
        );
        let good = Pack::default()
            .with_deflate(deflated)
            .add("a.npy", &array)
            .finish();
        let start = 30 + "a.npy".len();
        let mut refused = 0;
        let stored = ForeignFile::open("m.npz", good.clone()).unwrap();
        let stored_len = stored.archive.entries()[0].stored_len as usize;
        for at in (start..start + stored_len).step_by(stored_len / 120) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let outcome = ForeignFile::open("m.npz", bad).map(|file| {
                let read = whole(&file).and_then(|_| file.version());
                read.err().map(|error| error.to_string())
            });
            match outcome {
                Ok(Some(reason)) => assert!(reason.contains("\"a.npy\""), "{reason}"),
                Err(WeightError::Foreign { .. }) => {}
                other => panic!("byte {at}: {other:?}"),
            }
            refused += 1;
        }
        assert!(refused > 100);
    }
}

#[test]
fn what_is_not_read_is_checked_all_the_same() {
    let array = npy("<u2", false, "(50000,)", &[1; 100_000]);
    let mut bad = Pack::default().stored("a.npy", &array).finish();
    let last = 30 + "a.npy".len() + array.len() - 1;
    bad[last] ^= 1;
    let file = ForeignFile::open("m.npz", bad).unwrap();
    file.version().unwrap();
    file.read_exact_at(file.header().data_start(), &mut [0; 16])
        .unwrap();
    let error = file.version().unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn directories_that_lie_are_refused() {
    let array = npy("<u2", false, "(5,)", &[1; 10]);
    let twice = Pack::default()
        .add("a.npy", &array)
        .add("a.npy", &array)
        .finish();
    assert!(refusal("m", twice).contains("called \"a.npy\""));
    let bomb = Pack::default()
        .with_deflate(true)
        .add("a.npy", &array)
        .with_claim(1 << 40)
        .finish();
    assert!(refusal("m", bomb).contains("claims"), "a terabyte");
    let long = Pack::default()
        .add("a.npy", &array)
        .with_stored_claim(1 << 30)
        .finish();
    assert!(refusal("m", long).contains("claims"));
    let good = Pack::default().add("a.npy", &array).finish();
    for len in 4..good.len() {
        assert!(
            ForeignFile::open("m", good[..len].to_vec()).is_err(),
            "cut at {len}"
        );
    }
    let encrypted = Pack::default().add("a.npy", &array).with_flags(1).finish();
    assert!(refusal("m", encrypted).contains("encrypted"));
    let method = Pack::default()
        .add("a.npy", &array)
        .with_method(14)
        .finish();
    assert!(refusal("m", method).contains("DEFLATE"));
}

#[test]
fn a_source_that_shrinks_is_noticed() {
    struct Shrinking(Vec<u8>, AtomicU64);
    impl ByteSource for Shrinking {
        fn len_bytes(&self) -> std::io::Result<u64> {
            Ok(self.0.len() as u64 - self.1.load(Ordering::Relaxed))
        }
        fn read_exact_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
            self.0.read_exact_at(offset, target)
        }
    }
    let bytes = npy("<u2", false, "(5,)", &[1; 10]);
    let file = ForeignFile::open("m.npy", Shrinking(bytes, AtomicU64::new(0))).unwrap();
    assert!(file.len_bytes().is_ok());
    file.archive.source().1.store(1, Ordering::Relaxed);
    assert_eq!(
        file.len_bytes().unwrap_err().kind(),
        std::io::ErrorKind::UnexpectedEof
    );
}
