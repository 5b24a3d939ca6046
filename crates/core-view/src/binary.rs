//! bincode's own traits for types, storages and tensors.
//!
//! The bytes are those that bincode makes of the serde forms. Reading differs: a length is believed only as
//! far as bytes follow it, so that a hostile one is refused and never allocated, with or without a limit in
//! the configuration.

#![deny(clippy::indexing_slicing)]

use bincode::de::read::Reader;
use bincode::de::{Decode, Decoder};
use bincode::enc::write::Writer;
use bincode::enc::{Encode, Encoder};
use bincode::error::{DecodeError, EncodeError};

use crate::{DType, RANK_MAX, Tensor, TensorStorage, ViewError};

/// Bytes read at once where the reader can't tell how many follow.
const CHUNK_BYTES: usize = 1 << 20;

/// No name of a type is longer.
const NAME_LEN_MAX: usize = 16;

fn refuse(error: impl std::fmt::Display) -> DecodeError {
    DecodeError::OtherString(error.to_string())
}

impl Encode for DType {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.safetensors_name().encode(encoder)
    }
}

impl<Context> Decode<Context> for DType {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = decode_len(decoder)?;
        let mut name = [0; NAME_LEN_MAX];
        let name = name
            .get_mut(..len)
            .ok_or_else(|| refuse(format!("{len} bytes are too long for the name of a type")))?;
        decoder.claim_bytes_read(len)?;
        decoder.reader().read(name)?;
        std::str::from_utf8(name)
            .map_err(refuse)?
            .parse()
            .map_err(refuse)
    }
}

impl Encode for TensorStorage {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_slice().encode(encoder)
    }
}

impl<Context> Decode<Context> for TensorStorage {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let len = decode_len(decoder)?;
        decode_bytes(decoder, len)
    }
}

impl Encode for Tensor {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let bytes = self
            .as_bytes()
            .map_err(|error| EncodeError::OtherString(error.to_string()))?;
        self.dtype().encode(encoder)?;
        (self.rank() as u64).encode(encoder)?;
        for &dim in self.shape() {
            (dim as u64).encode(encoder)?;
        }
        (bytes.len() as u64).encode(encoder)?;
        encoder.writer().write(bytes)
    }
}

impl<Context> Decode<Context> for Tensor {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let dtype = DType::decode(decoder)?;
        let rank = decode_len(decoder)?;
        let mut dims = [0; RANK_MAX];
        let dims = dims.get_mut(..rank).ok_or_else(|| {
            refuse(ViewError::RankTooHigh {
                rank,
                rank_max: RANK_MAX,
            })
        })?;
        for dim in dims.iter_mut() {
            *dim = decode_len(decoder)?;
        }
        let len = decode_len(decoder)?;
        let elements = if dims.contains(&0) {
            Some(0)
        } else {
            dims.iter()
                .try_fold(1_usize, |product, &dim| product.checked_mul(dim))
        };
        if elements.and_then(|elements| dtype.len_bytes(elements)) != Some(len) {
            return Err(refuse(format!(
                "{len} bytes of data for a tensor of shape {dims:?} and type {dtype}"
            )));
        }
        let storage = decode_bytes(decoder, len)?;
        Self::from_storage(storage, dtype, dims).map_err(refuse)
    }
}

bincode::impl_borrow_decode!(DType);
bincode::impl_borrow_decode!(TensorStorage);
bincode::impl_borrow_decode!(Tensor);

fn decode_len<D: Decoder>(decoder: &mut D) -> Result<usize, DecodeError> {
    let len = u64::decode(decoder)?;
    usize::try_from(len).map_err(|_| DecodeError::OutsideUsizeRange(len))
}

/// Reads `len` bytes, allocating for no more than have arrived and one chunk.
fn decode_bytes<D: Decoder>(decoder: &mut D, len: usize) -> Result<TensorStorage, DecodeError> {
    decoder.claim_bytes_read(len)?;
    if let Some(bytes) = decoder.reader().peek_read(len) {
        let storage = TensorStorage::from_slice(bytes).map_err(refuse)?;
        decoder.reader().consume(len);
        return Ok(storage);
    }
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let start = bytes.len();
        let chunk = CHUNK_BYTES.min(len - start);
        bytes.try_reserve(chunk).map_err(refuse)?;
        bytes.resize(start + chunk, 0);
        let fresh = bytes.get_mut(start..).unwrap_or_default();
        decoder.reader().read(fresh)?;
    }
    // The alignment of a vector of bytes is not promised.
    TensorStorage::from_slice(&bytes).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use bincode::config;

    use super::*;

    fn tensor() -> Tensor {
        let tensor = Tensor::from_vec((0_u32..100).collect(), &[10, 10]).unwrap();
        tensor.narrow(0, 4, 2).unwrap()
    }

    fn decode_both(bytes: &[u8]) -> Result<Tensor, DecodeError> {
        let sliced = bincode::decode_from_slice::<Tensor, _>(bytes, config::standard());
        let streamed =
            bincode::decode_from_std_read::<Tensor, _, _>(&mut &*bytes, config::standard());
        assert_eq!(sliced.is_ok(), streamed.is_ok());
        if let (Ok((sliced, used)), Ok(streamed)) = (&sliced, &streamed) {
            assert_eq!(*used, bytes.len());
            assert_eq!(sliced.shape(), streamed.shape());
            assert_eq!(sliced.as_bytes().unwrap(), streamed.as_bytes().unwrap());
        }
        sliced.map(|(tensor, _)| tensor)
    }

    #[test]
    fn only_the_view_is_written_and_read_back() {
        let bytes = bincode::encode_to_vec(tensor(), config::standard()).unwrap();
        assert_eq!(bytes.len(), 1 + 3 + 1 + 2 + 1 + 80);
        let back = decode_both(&bytes).unwrap();
        assert_eq!(back.shape(), [2, 10]);
        assert_eq!(
            back.as_slice::<u32>().unwrap(),
            (40..60).collect::<Vec<_>>()
        );
        let turned = tensor().transpose(0, 1).unwrap();
        let error = bincode::encode_to_vec(&turned, config::standard()).unwrap_err();
        assert!(error.to_string().contains("contiguous()"), "{error}");
    }

    #[test]
    fn large_data_arrives_through_a_stream() {
        let tensor = Tensor::from_vec(
            vec![7_u64; (CHUNK_BYTES + 4096) / 8 * 3],
            &[(CHUNK_BYTES + 4096) / 8 * 3],
        );
        let bytes = bincode::encode_to_vec(tensor.unwrap(), config::standard()).unwrap();
        assert!(
            decode_both(&bytes)
                .unwrap()
                .as_slice::<u64>()
                .unwrap()
                .iter()
                .all(|&x| x == 7)
        );
    }

    #[test]
    #[cfg(feature = "serde")]
    fn the_bytes_are_those_of_the_serde_form() {
        let own = bincode::encode_to_vec(tensor(), config::standard()).unwrap();
        let bridged = bincode::serde::encode_to_vec(tensor(), config::standard()).unwrap();
        assert_eq!(own, bridged);
        let (back, _): (Tensor, _) =
            bincode::serde::borrow_decode_from_slice(&own, config::standard()).unwrap();
        assert_eq!(back.as_bytes().unwrap(), tensor().as_bytes().unwrap());
    }

    #[test]
    fn a_configured_limit_holds_for_the_data() {
        let bytes = bincode::encode_to_vec(tensor(), config::standard()).unwrap();
        let limited = config::standard().with_limit::<64>();
        assert!(bincode::decode_from_slice::<Tensor, _>(&bytes, limited).is_err());
        let limited = config::standard().with_limit::<200>();
        assert!(bincode::decode_from_slice::<Tensor, _>(&bytes, limited).is_ok());
    }

    #[test]
    fn hostile_lengths_are_refused_before_allocation() {
        let big = [0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let u8_tensor = [&[2][..], b"U8", &[1], &big, &big, &[0; 10]].concat();
        assert!(decode_both(&u8_tensor).is_err());
        let storage = [&big[..], &[0; 10]].concat();
        assert!(
            bincode::decode_from_slice::<TensorStorage, _>(&storage, config::standard()).is_err()
        );
        assert!(
            bincode::decode_from_std_read::<TensorStorage, _, _>(
                &mut &storage[..],
                config::standard()
            )
            .is_err()
        );
        assert!(decode_both(&[&big[..], b"U8"].concat()).is_err());
        assert!(decode_both(&[&[2][..], b"U8", &big].concat()).is_err());
        assert!(decode_both(&[&[2][..], b"U8", &[2, 3, 4, 11], &[0; 11]].concat()).is_err());
    }

    #[test]
    fn every_cut_is_refused_and_no_flip_makes_more_data() {
        let whole = bincode::encode_to_vec(tensor(), config::standard()).unwrap();
        for len in 0..whole.len() {
            assert!(decode_both(&whole[..len]).is_err(), "{len}");
        }
        for at in 0..8 {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(tensor) =
                    bincode::decode_from_slice::<Tensor, _>(&damaged, config::standard())
                {
                    assert!(tensor.0.as_bytes().unwrap().len() <= 80, "{at} {bit}");
                }
            }
        }
    }
}
