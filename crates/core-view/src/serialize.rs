//! serde for types, storages and tensors.
//!
//! A storage is its bytes; a tensor is the name of its type, its shape and its bytes in row-major order. A
//! strided tensor is refused, so that a copy is never made unasked: call `contiguous` first.

use std::fmt;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{DType, RANK_MAX, Tensor, TensorStorage};

/// Elements reserved at most on the word of a length that has not been seen to be true.
const UNPROVEN_RESERVE_MAX: usize = 4096;

impl Serialize for DType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.safetensors_name())
    }
}

impl<'de> Deserialize<'de> for DType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = DType;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an element type")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<DType, E> {
                name.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

impl Serialize for TensorStorage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_slice())
    }
}

impl<'de> Deserialize<'de> for TensorStorage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = TensorStorage;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<TensorStorage, E> {
                TensorStorage::from_slice(bytes).map_err(E::custom)
            }

            fn visit_byte_buf<E: serde::de::Error>(
                self,
                bytes: Vec<u8>,
            ) -> Result<TensorStorage, E> {
                aligned(bytes).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TensorStorage, A::Error> {
                let reserve = seq.size_hint().unwrap_or(0).min(UNPROVEN_RESERVE_MAX);
                let mut bytes = Vec::with_capacity(reserve);
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                aligned(bytes).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

/// Takes over bytes, by copy only if they are not aligned for every element type.
pub(crate) fn aligned(bytes: Vec<u8>) -> Result<TensorStorage, crate::ViewError> {
    if bytes.as_ptr().addr().is_multiple_of(align_of::<u64>()) {
        return Ok(TensorStorage::from_vec(bytes));
    }
    TensorStorage::from_slice(&bytes)
}

impl Serialize for Tensor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Bytes<'a>(&'a [u8]);
        impl Serialize for Bytes<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.0)
            }
        }
        let bytes = self.as_bytes().map_err(S::Error::custom)?;
        let mut fields = serializer.serialize_struct("Tensor", 3)?;
        fields.serialize_field("dtype", &self.dtype())?;
        fields.serialize_field("shape", self.shape())?;
        fields.serialize_field("data", &Bytes(bytes))?;
        fields.end()
    }
}

/// The lengths of up to [`RANK_MAX`] dimensions.
struct Dims(Vec<usize>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DimsVisitor;
        impl<'de> Visitor<'de> for DimsVisitor {
            type Value = Dims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "the lengths of at most {RANK_MAX} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Dims, A::Error> {
                let mut dims = Vec::with_capacity(RANK_MAX);
                while let Some(dim) = seq.next_element()? {
                    if dims.len() == RANK_MAX {
                        return Err(A::Error::invalid_length(RANK_MAX + 1, &self));
                    }
                    dims.push(dim);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(DimsVisitor)
    }
}

impl<'de> Deserialize<'de> for Tensor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "Tensor")]
        struct Fields {
            dtype: DType,
            shape: Dims,
            data: TensorStorage,
        }
        let fields = Fields::deserialize(deserializer)?;
        Self::from_storage(fields.data, fields.dtype, &fields.shape.0).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_view_is_written() {
        let tensor = Tensor::from_vec((0_u16..1000).collect(), &[1000]).unwrap();
        let view = tensor.narrow(0, 2, 2).unwrap().unsqueeze(0).unwrap();
        let json = serde_json::to_string(&view).unwrap();
        assert_eq!(json, r#"{"dtype":"U16","shape":[1,2],"data":[2,0,3,0]}"#);
        let back: Tensor = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (back.shape(), back.as_slice::<u16>().unwrap()),
            (&[1, 2][..], &[2, 3][..])
        );
        let storage = view.storage().view(1, 3).unwrap();
        let json = serde_json::to_string(&storage).unwrap();
        let back: TensorStorage = serde_json::from_str(&json).unwrap();
        assert_eq!(back.as_slice(), [0, 1, 0]);
    }

    #[test]
    fn a_strided_tensor_is_made_contiguous_by_its_holder() {
        let tensor = Tensor::from_vec(vec![1_u8, 2, 3, 4], &[2, 2]).unwrap();
        let turned = tensor.transpose(0, 1).unwrap();
        let error = serde_json::to_string(&turned).unwrap_err().to_string();
        assert!(error.contains("contiguous()"), "{error}");
        assert!(serde_json::to_string(&turned.contiguous().unwrap()).is_ok());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        for json in [
            r#"{"dtype":"U16","shape":[3],"data":[2,0,3,0]}"#,
            r#"{"dtype":"F128","shape":[2],"data":[2,0,3,0]}"#,
            r#"{"dtype":"U16","shape":[1,1,1,1,1,1,1,1,2],"data":[2,0,3,0]}"#,
            r#"{"dtype":"U16","shape":[18446744073709551615,2],"data":[]}"#,
            r#"{"dtype":"U16","shape":[2]}"#,
            r#"{"dtype":"U16","shape":[2],"data":[2,0,3,256]}"#,
        ] {
            assert!(serde_json::from_str::<Tensor>(json).is_err(), "{json}");
        }
    }
}
