//! Any tensors of any type and shape come back through every codec.

use core_view::DType;
use proptest::prelude::*;
use proptest::sample::select;
use weightstore::{Codec, HashKey, ImportOptions, WeightStore, WeightTensor};

use crate::fixture::{Tensor, add_with, get, noise, plain, safetensors, store};

fn tensor() -> impl Strategy<Value = Tensor> {
    let dtype = select(DType::all().collect::<Vec<_>>());
    let shape = proptest::collection::vec(0_u64..12, 0..4);
    (dtype, shape, any::<u64>(), 0_u32..4).prop_map(|(dtype, mut shape, seed, kind)| {
        // Packed types need a whole number of bytes.
        shape.push(8);
        let elements: u64 = shape.iter().product();
        let len = dtype.len_bytes(elements as usize).unwrap();
        let bytes = match kind {
            0 => vec![0; len],
            1 => vec![0xff; len],
            2 => plain(seed, len),
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
