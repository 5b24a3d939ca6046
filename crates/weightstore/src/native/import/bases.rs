//! What the tensors of an import may be stored against.

use std::sync::Arc;

use core_view::safetensors::TensorInfo;

use super::pipeline::FileTensors;
use crate::native::base::{ModelBases, is_sketched};
use crate::native::core::Core;
use crate::native::session::Session;
use crate::native::tensor::Tensor;
use crate::{Sketch, WeightError};

/// Elements of a tensor beyond a group by which a base is chosen before the rest is read.
const FIRST_SLOTS: usize = 256;

/// Below this a difference from a namesake is not tried: the header is the larger part.
const NAMED_LEN_MIN: u64 = 4096;

/// Where bases are looked for.
#[derive(Debug, Default)]
pub(super) struct Bases {
    /// In this model, by name.
    pub(super) named: Option<ModelBases>,
    /// Among all that is stored, by sketch.
    pub(super) find: bool,
}

impl Bases {
    /// Whether there is anything to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.named.is_none() && !self.find
    }

    /// The base of a tensor, whose sketch is at hand if it was read whole.
    pub(super) fn of(
        &self,
        (core, session): (&Core, &Session<'_>),
        file: &FileTensors<'_>,
        info: &TensorInfo,
        sketch: Option<&Sketch>,
    ) -> Result<Option<Arc<Tensor>>, WeightError> {
        if info.len_bytes() >= NAMED_LEN_MIN
            && let Some(named) = &self.named
            && let Some(hash) = named.get(&(info.name.clone(), info.dtype))
            && let Some(base) = core.base(session, hash)?
        {
            return Ok(Some(base));
        }
        if !self.find || !is_sketched(info.len_bytes()) {
            return Ok(None);
        }
        match sketch {
            Some(sketch) => core.nearest(session, sketch, usize::MAX),
            None if !core.catalog().has_alike(info) => Ok(None),
            None => match first_slots(file, info) {
                Some(sketch) => core.nearest(session, &sketch, FIRST_SLOTS),
                None => Ok(None),
            },
        }
    }
}

/// The beginning of a sketch, read ahead from the file; that it can't be read shows again, and is answered
/// for, when the bytes' turn comes.
fn first_slots(file: &FileTensors<'_>, info: &TensorInfo) -> Option<Sketch> {
    let start = file.data_start + info.start;
    let tensor = (info.dtype, info.shape.as_slice(), info.len_bytes());
    Sketch::read_first(FIRST_SLOTS, tensor, |at, target| {
        let read = file.file.source.read_exact_at(start + at as u64, target);
        read.ok()
    })
}
