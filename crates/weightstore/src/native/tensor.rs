//! A stored tensor with the bases that it needs.

use std::sync::Arc;

use super::core::Core;
use crate::record::{Body, DEPTH_MAX, ObjectRecord};
use crate::{WeightError, WeightHash};

/// A tensor's header, and those of its bases.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tensor {
    pub(super) hash: WeightHash,
    pub(super) record: ObjectRecord,
    pub(super) base: Option<Arc<Tensor>>,
}

/// Whose chunks are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) structure: &'static str,
    pub(super) hash: &'a WeightHash,
    pub(super) body: &'a Body,
    pub(super) base: Option<&'a Arc<Tensor>>,
}

impl Tensor {
    pub(super) fn source(&self) -> Source<'_> {
        Source {
            structure: "tensor",
            hash: &self.hash,
            body: &self.record.body,
            base: self.base.as_ref(),
        }
    }
}

impl<'a> Source<'a> {
    pub(super) fn delta(hash: &'a WeightHash, body: &'a Body) -> Self {
        Self {
            structure: "delta",
            hash,
            body,
            base: None,
        }
    }

    pub(super) fn corrupt(self, index: usize, reason: impl std::fmt::Display) -> WeightError {
        WeightError::corrupt(
            self.structure,
            self.hash.to_string(),
            format!("chunk {index}: {reason}"),
        )
    }
}

impl Core {
    /// A tensor with its bases; `None` if there is no such tensor.
    pub(super) fn tensor(&self, hash: &WeightHash) -> Result<Option<Tensor>, WeightError> {
        loop {
            let Some(record) = self.object(hash)? else {
                return Ok(None);
            };
            match self.with_bases(*hash, record.clone()) {
                // It was deleted, or stored with another base, while its bases were read.
                Err(WeightError::Corrupt { .. }) if self.moved(hash, &record)? => {}
                tensor => return tensor.map(Some),
            }
        }
    }

    /// The tensor of a header that was read.
    pub(super) fn with_bases(
        &self,
        hash: WeightHash,
        record: ObjectRecord,
    ) -> Result<Tensor, WeightError> {
        // From the last base up: none is held twice, and depths that fall end every circle.
        let mut chain = vec![(hash, record)];
        while let Some((_, above)) = chain.last()
            && let Some(link) = above.base
        {
            let wrong = |reason: String| {
                WeightError::corrupt("tensor", link.hash.to_string(), reason)
                    .within(&format!("the base of tensor {hash}"))
            };
            let record = self
                .object(&link.hash)
                .map_err(|error| error.within(&format!("the base of tensor {hash}")))?
                .ok_or_else(|| wrong("its record is missing".into()))?;
            if record.depth() >= link.depth || record.dtype != above.dtype {
                // mutant: weights-no-depth-check
                return Err(wrong(format!(
                    "it is {} of depth {}, which can't be the base of {} of depth {}",
                    record.dtype,
                    record.depth(),
                    above.dtype,
                    link.depth
                )));
            }
            chain.push((link.hash, record));
            debug_assert!(chain.len() <= usize::from(DEPTH_MAX) + 1);
        }
        let mut base = None;
        while let Some((hash, record)) = chain.pop() {
            let tensor = Tensor { hash, record, base };
            if chain.is_empty() {
                return Ok(tensor);
            }
            base = Some(Arc::new(tensor));
        }
        Err(WeightError::corrupt(
            "tensor",
            hash.to_string(),
            "it has no header",
        ))
    }

    /// The tensor as it is stored now, if it was stored otherwise since it was read.
    pub(super) fn renewed(&self, source: Source<'_>) -> Result<Option<Tensor>, WeightError> {
        if source.structure != "tensor" {
            return Ok(None);
        }
        // What is being committed shows after this.
        drop(self.ledger());
        let now = self.tensor(source.hash)?;
        Ok(now.filter(|now| now.record.body != *source.body || now.base.as_ref() != source.base))
    }
}
