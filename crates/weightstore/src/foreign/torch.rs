//! What `torch.save` writes: a zip archive of a pickle and the storages that it names.

mod machine;
mod names;
mod opcode;
mod rebuild;
mod value;
mod walk;

use std::collections::HashMap;

use super::archive::Archive;
use super::format::ModelFormat;
use super::piece::{Elements, is_c_order, span};
use core_view::DType;

use super::{Content, Found};
use crate::{ByteSource, WeightError};
use value::{ElementType, Strided};
use walk::Named;

/// The longest pickle that is read, in bytes: that of a hundred thousand tensors has some tens of MiB.
const PICKLE_LEN_MAX: u64 = 128 << 20;
/// How much longer than its storage a tensor may be whose elements overlap.
const EXPANDED_LEN_MAX: u64 = 1 << 30;

/// Whether an entry is the pickle of a `state_dict`.
pub(super) fn is_pickle(name: &str) -> bool {
    name == "data.pkl" || name.ends_with("/data.pkl")
}

/// Opens an archive; only its pickle is read.
pub(super) fn open<S: ByteSource>(
    name: &str,
    archive: Archive<S>,
) -> Result<(Archive<S>, Content), WeightError> {
    let content = Checkpoint {
        name,
        archive: &archive,
    }
    .content()?;
    Ok((archive, content))
}

struct Checkpoint<'a, S> {
    name: &'a str,
    archive: &'a Archive<S>,
}

impl<S: ByteSource> Checkpoint<'_, S> {
    fn refused(&self, reason: impl Into<String>) -> WeightError {
        ModelFormat::Torch.refused(self.name, reason)
    }

    fn entry(&self, name: &str) -> Option<usize> {
        let mut entries = self.archive.entries().iter();
        entries.position(|entry| entry.name == name)
    }

    fn whole(&self, index: usize, len_max: u64) -> Result<Vec<u8>, WeightError> {
        let read = self.archive.whole(index, len_max);
        read.map_err(|error| ModelFormat::Torch.failed(self.name, error))
    }

    fn content(&self) -> Result<Content, WeightError> {
        let mut pickles = self.archive.entries().iter().enumerate();
        let mut pickles = pickles.by_ref().filter(|(_, entry)| is_pickle(&entry.name));
        let (Some((index, entry)), None) = (pickles.next(), pickles.next()) else {
            return Err(self.refused("it has more than one pickle"));
        };
        let prefix = entry.name.strip_suffix("data.pkl").unwrap_or_default();
        if self.entry(&format!("{prefix}constants.pkl")).is_some() {
            return Err(self.refused("it is a TorchScript program; save its state_dict instead"));
        }
        let big_endian = match self.entry(&format!("{prefix}byteorder")) {
            None => false,
            Some(index) => match self.whole(index, 16)?.trim_ascii() {
                b"little" => false,
                b"big" => true,
                _ => return Err(self.refused("its byte order is neither little nor big")),
            },
        };
        let pickle = self.whole(index, PICKLE_LEN_MAX)?;
        let (arena, root) = machine::run(&pickle).map_err(|reason| self.refused(reason))?;
        let walked = walk::tensors(&arena, root, super::format::stem(self.name));
        let walked = walked.map_err(|reason| self.refused(reason))?;
        let storages = self.storages(prefix);
        let mut tensors = Vec::with_capacity(walked.tensors.len());
        for Named { name, tensor } in walked.tensors {
            let refused = |reason| self.refused(format!("tensor {name:?}: {reason}"));
            let (dtype, width) = known(tensor.dtype).map_err(refused)?;
            let elements = self.elements(&storages, tensor, (dtype, width), big_endian);
            let elements = elements.map_err(refused)?;
            let shape = match dtype {
                DType::F4 => pairs_apart(tensor).map_err(refused)?,
                _ => tensor.shape.clone(),
            };
            tensors.push(Found {
                name,
                dtype,
                shape,
                elements,
            });
        }
        Ok(Content {
            tensors,
            skipped_values: walked.skipped_values,
        })
    }

    /// The entries that are storages, by their keys.
    fn storages(&self, prefix: &str) -> HashMap<&str, usize> {
        let entries = self.archive.entries().iter().enumerate();
        let keys = entries.filter_map(|(index, entry)| {
            let key = entry.name.strip_prefix(prefix)?.strip_prefix("data/")?;
            Some((key, index))
        });
        keys.collect()
    }

    /// Where a tensor's elements are, all of them inside their storage.
    fn elements(
        &self,
        storages: &HashMap<&str, usize>,
        tensor: &Strided,
        (dtype, width): (DType, u64),
        big_endian: bool,
    ) -> Result<Elements, String> {
        let key = &tensor.storage;
        let index = storages.get(&**key);
        let index = *index.ok_or_else(|| format!("its storage {key:?} is not in the archive"))?;
        let entry = self.archive.entries().get(index);
        let stored = entry.map_or(0, |entry| entry.len_bytes);
        // Bytes behind the last whole element belong to nobody.
        let storage_width = tensor
            .storage_dtype
            .map_or(Some(1), ElementType::width_bytes);
        let whole_elements = storage_width.and_then(|width| stored.checked_div(width));
        if whole_elements != Some(tensor.storage_elements) {
            return Err(format!(
                "its storage {key:?} has {stored} bytes and claims others"
            ));
        }
        let outside = || format!("it reaches beyond the {stored} bytes of its storage {key:?}");
        let span = span(&tensor.shape, &tensor.strides).ok_or_else(outside)?;
        let end = span
            .checked_add(tensor.offset)
            .and_then(|end| end.checked_mul(width))
            .filter(|end| span == 0 || *end <= stored);
        end.ok_or_else(outside)?;
        let elements = tensor
            .shape
            .iter()
            .try_fold(1_u64, |product, dim| product.checked_mul(*dim));
        let len = elements.and_then(|elements| elements.checked_mul(width));
        let len_max = stored.saturating_add(EXPANDED_LEN_MAX);
        if len.is_none_or(|len| len > len_max) {
            return Err(format!(
                "{:?} has far more elements than its storage; save a copy of it",
                tensor.shape
            ));
        }
        Ok(Elements {
            entry: index,
            offset: if span == 0 { 0 } else { tensor.offset * width },
            width: width as usize,
            turned: match big_endian {
                true => dtype.alignment_bytes(),
                false => 1,
            },
            strides: (!is_c_order(&tensor.shape, &tensor.strides)).then(|| tensor.strides.clone()),
        })
    }
}

/// The type of elements and the width in bytes of what strides count.
fn known(dtype: ElementType) -> Result<(DType, u64), String> {
    let lacking = |name: &str| {
        format!("it has elements of torch.{name}, which safetensors lacks; save it as another type")
    };
    match (dtype, dtype.width_bytes()) {
        (ElementType::Known(dtype), Some(width)) => Ok((dtype, width)),
        (ElementType::Known(dtype), None) => Err(lacking(dtype.numpy_name())),
        (ElementType::Lacking(name), _) => Err(lacking(name)),
    }
}

/// The shape of a tensor whose bytes hold two elements each, of which safetensors counts each.
fn pairs_apart(tensor: &Strided) -> Result<Vec<u64>, String> {
    let mut shape = tensor.shape.clone();
    let last = shape
        .last_mut()
        .filter(|_| is_c_order(&tensor.shape, &tensor.strides));
    let last =
        last.ok_or("it holds two elements in a byte, not in C order; save its contiguous()")?;
    *last = last.checked_mul(2).ok_or("it is too long")?;
    Ok(shape)
}
