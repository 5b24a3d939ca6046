//! The header's JSON as it stands, duplicates included.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Pairs in the order of the text; a map would hide duplicates.
pub(super) type Pairs<V> = Vec<(String, V)>;

/// A tensor as the header describes it, nothing checked yet.
pub(super) struct RawTensor {
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) data_offsets: (u64, u64),
}

/// A whole header, nothing checked yet.
#[derive(Default)]
pub(super) struct RawHeader {
    pub(super) tensors: Pairs<RawTensor>,
    /// One list for each time that the key occurs.
    pub(super) metadata: Vec<Pairs<String>>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut header = RawHeader::default();
        while let Some(name) = map.next_key::<String>()? {
            if name == super::header::METADATA_KEY {
                let pairs = map.next_value::<Option<StringPairs>>()?;
                header
                    .metadata
                    .push(pairs.map_or_else(Vec::new, |pairs| pairs.0));
            } else {
                let tensor = map.next_value_seed(TensorSeed { name: &name })?;
                header.tensors.push((name, tensor));
            }
        }
        Ok(header)
    }
}

/// An object of strings, duplicates included.
pub(super) struct StringPairs(pub(super) Pairs<String>);

impl<'de> Deserialize<'de> for StringPairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(StringPairsVisitor)
    }
}

struct StringPairsVisitor;

impl<'de> Visitor<'de> for StringPairsVisitor {
    type Value = StringPairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StringPairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(StringPairs(pairs))
    }
}

/// Reads one tensor's description; knows the name for its messages.
struct TensorSeed<'a> {
    name: &'a str,
}

impl<'de> DeserializeSeed<'de> for TensorSeed<'_> {
    type Value = RawTensor;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawTensor, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TensorSeed<'_> {
    type Value = RawTensor;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dtype, shape and data_offsets of tensor {:?}", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawTensor, A::Error> {
        let (mut dtype, mut shape, mut data_offsets) = (None, None, None);
        let fresh = |known: bool, field: &str| {
            let message = || format!("tensor {:?} has {field} twice", self.name);
            if known {
                Err(A::Error::custom(message()))
            } else {
                Ok(())
            }
        };
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "dtype" => {
                    fresh(dtype.is_some(), "dtype")?;
                    dtype = Some(map.next_value()?);
                }
                "shape" => {
                    fresh(shape.is_some(), "shape")?;
                    shape = Some(map.next_value()?);
                }
                "data_offsets" => {
                    fresh(data_offsets.is_some(), "data_offsets")?;
                    data_offsets = Some(map.next_value()?);
                }
                // The reference reader ignores further fields too.
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let missing =
            |field: &str| A::Error::custom(format!("tensor {:?} has no {field}", self.name));
        Ok(RawTensor {
            dtype: dtype.ok_or_else(|| missing("dtype"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            data_offsets: data_offsets.ok_or_else(|| missing("data_offsets"))?,
        })
    }
}
