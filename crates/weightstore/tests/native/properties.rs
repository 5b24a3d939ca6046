//! Any tensors of any type and shape come back through every codec.

use core_view::DType;
use proptest::prelude::*;
use proptest::sample::select;
use weightstore::{Codec, HashKey, ImportOptions, WeightStore, WeightTensor};

use crate::fixture::{Tensor, add_with, get, noise, plain, safetensors, store};

fn tensor() -> impl Strategy<Value = Tensor> {
    let dtype = select(DType::all().collect::<Vec<_>>());
    let shape = proptest::collection::vec(0_u64..12, 0..4);
    (dtype, shape, any::<u64>(), 0_u32..6).prop_map(|(dtype, mut shape, seed, kind)| {
        // Packed types need a whole number of bytes.
        shape.push(8);
        let elements: u64 = shape.iter().product();
        let len = dtype.len_bytes(elements as usize).unwrap();
        let bytes = match kind {
            0 => vec![0; len],
            1 => vec![0xff; len],
            2 => plain(seed, len),
            3 => special(dtype, seed, len),
            _ => noise(seed, len),
        };
        Tensor {
            name: String::new(),
            dtype,
            shape,
            bytes,
        }
    })
}

/// Floats whose exponents are all ones or all zeros: NaNs of any payload, infinities, subnormals, both zeros. Of other
/// types, bytes of such numbers.
fn special(dtype: DType, seed: u64, len: usize) -> Vec<u8> {
    let (width, exponent) = match dtype {
        DType::F16 => (2, 0x7c00),
        DType::F32 => (4, 0x7f80_0000),
        DType::F64 => (8, 0x7ff0_0000_0000_0000),
        _ => (2, 0x7f80),
    };
    let mut bytes = noise(seed, len);
    for (index, element) in bytes.chunks_exact_mut(width).enumerate() {
        let mut word = [0; 8];
        word[..width].copy_from_slice(element);
        let number = u64::from_le_bytes(word);
        let number = match (seed >> (index % 60)) % 8 {
            0 => number & !exponent,
            1 => number & exponent & !(exponent >> 1),
            2 => exponent,
            3 => 0,
            _ => number | exponent,
        };
        element.copy_from_slice(&number.to_le_bytes()[..width]);
    }
    bytes
}

fn codecs() -> Vec<Codec> {
    let all = [
        Codec::None,
        Codec::Auto,
        Codec::Lz4,
        Codec::Gzip { level: 1 },
        Codec::Gzip { level: 9 },
    ];
    all.into_iter()
        .filter(|codec| codec.check().is_ok())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn models_of_any_tensors_round_trip(
        mut tensors in proptest::collection::vec(tensor(), 0..12),
        codec in select(codecs()),
    ) {
        for (index, tensor) in tensors.iter_mut().enumerate() {
            tensor.name = format!("t{index}");
        }
        let (_, store) = store();
        let file = safetensors(&tensors);
        let options = ImportOptions::default().with_codec(codec).with_file_sha256(true);
        add_with(&store, "m", &file, &options).unwrap();
        prop_assert_eq!(get(&store, "m").unwrap(), file);
        for tensor in &tensors {
            let loaded = store.load_tensor("m", &tensor.name).unwrap();
            prop_assert_eq!(loaded.bytes(), &tensor.bytes[..]);
            prop_assert_eq!((loaded.dtype(), loaded.shape()), (tensor.dtype, &tensor.shape[..]));
            let weight = WeightTensor::new("x", tensor.dtype, &tensor.shape, tensor.bytes.clone());
            let key = HashKey::from(weight.unwrap().compute_alias());
            prop_assert!(store.exists(&key).unwrap());
        }
        prop_assert!(store.verify(None).unwrap().is_whole());
    }
}

/// How a tensor came from the one before.
#[derive(Debug, Clone)]
enum Change {
    /// Some bits are others, wherever: signs, exponents, what becomes a NaN.
    Bits(u64, usize),
    /// The lowest byte of each so many bytes is another.
    LowBytes(u64, usize),
    /// All of it is this byte.
    Fill(u8),
    /// It ends with so many more rows, or fewer.
    Rows(u64, i64),
    /// Nothing of it is left.
    Stranger(u64),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<u64>(), 0_usize..500).prop_map(|(seed, count)| Change::Bits(seed, count)),
        (any::<u64>(), 1_usize..64).prop_map(|(seed, step)| Change::LowBytes(seed, step)),
        any::<u8>().prop_map(Change::Fill),
        (any::<u64>(), -20_i64..20).prop_map(|(seed, rows)| Change::Rows(seed, rows)),
        any::<u64>().prop_map(Change::Stranger),
    ]
}

fn changed(before: &Tensor, change: &Change) -> Tensor {
    let mut tensor = before.clone();
    let bytes = &mut tensor.bytes;
    match *change {
        Change::Bits(seed, count) => {
            for place in noise(seed, 4 * count).as_chunks::<4>().0 {
                let bit = u32::from_le_bytes(*place) as usize % (8 * bytes.len());
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        Change::LowBytes(seed, step) => {
            let changes = noise(seed, bytes.len());
            let low = bytes.iter_mut().zip(changes).step_by(8 * step);
            low.for_each(|(byte, change)| *byte ^= change & 7);
        }
        Change::Fill(byte) => bytes.fill(byte),
        Change::Rows(seed, rows) => {
            let row_len = bytes.len() / before.shape[0] as usize;
            let rows = before.shape[0].saturating_add_signed(rows).max(1);
            let more = noise(seed, rows as usize * row_len);
            let kept = bytes.len().min(more.len());
            bytes.truncate(kept);
            bytes.extend_from_slice(&more[kept..]);
            tensor.shape[0] = rows;
        }
        Change::Stranger(seed) => *bytes = noise(seed, bytes.len()),
    }
    tensor
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn chains_of_any_changes_round_trip(
        dtype in select(DType::all().collect::<Vec<_>>()),
        rows in 20_u64..80,
        seed in any::<u64>(),
        changes in proptest::collection::vec(change(), 1..7),
        depth_max in 0_u8..5,
        codec in select(codecs()),
        order in any::<u64>(),
    ) {
        let volume = tier_nvme::sim::SimVolume::new(1);
        let config = crate::fixture::config().with_chain_depth_max(depth_max);
        let store = weightstore::NativeStore::on_volume(volume.handle(), config).unwrap();
        let len = dtype.len_bytes(rows as usize * 256).unwrap();
        let bytes = match seed % 3 {
            0 => special(dtype, seed, len),
            _ => noise(seed, len),
        };
        let start = Tensor { name: "w".into(), dtype, shape: vec![rows, 256], bytes };
        let mut chain = vec![start];
        for change in &changes {
            let next = changed(chain.last().unwrap(), change);
            chain.push(next);
        }
        let mut left = Vec::new();
        for (index, tensor) in chain.iter().enumerate() {
            let file = safetensors(std::slice::from_ref(tensor));
            // Named, so that what is not alike is tried too.
            let base = index.checked_sub(1).map(|before| before.to_string());
            let mut options = ImportOptions::default().with_codec(codec);
            if let Some(base) = &base {
                options = options.with_base(base);
            }
            add_with(&store, &index.to_string(), &file, &options).unwrap();
            left.push((index.to_string(), file));
        }
        prop_assert!(store.stats().unwrap().depths.len() <= usize::from(depth_max) + 1);
        while !left.is_empty() {
            for (name, file) in &left {
                prop_assert!(get(&store, name).unwrap() == *file, "{}", name);
            }
            let gone = left.remove((order as usize) % left.len());
            store.remove_model(&gone.0).unwrap();
            store.gc(weightstore::GcOptions::default().with_rebase(order % 2 == 0)).unwrap();
            let report = store.verify(None).unwrap();
            prop_assert!(report.is_whole() && report.unreachable == 0, "{:?}", report);
        }
        prop_assert!(store.list_weights().unwrap().is_empty());
    }
}
