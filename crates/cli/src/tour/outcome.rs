//! What the tour found.

use serde::Serialize;

use super::cache::Cache;
use super::floor::Floor;
use super::step::Step;
use crate::error::CliError;
use crate::quantity::{bytes, speed};
use crate::table::{row, table};

/// What `tour` answers.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) dir: String,
    pub(super) model_bytes: u64,
    pub(super) sha256: String,
    pub(super) deduplication: Deduplication,
    pub(super) fine_tune: FineTune,
    pub(super) kv_cache: Cache,
    pub(super) floor: Floor,
    pub(super) steps: Vec<Step>,
    /// Whether all versions came back with their SHA-256.
    pub(super) identical: bool,
    #[serde(skip)]
    pub(super) differing: Vec<String>,
}

/// What the second version cost.
#[derive(Debug, Serialize)]
pub(super) struct Deduplication {
    pub(super) changed_tensor: String,
    pub(super) tensors: u64,
    pub(super) new_tensors: u64,
    pub(super) deduplicated_tensors: u64,
    pub(super) first_stored_bytes: u64,
    pub(super) second_stored_bytes: u64,
}

/// What a fine-tune cost that was found to be one.
#[derive(Debug, Serialize)]
pub(super) struct FineTune {
    pub(super) tensors: u64,
    pub(super) delta_tensors: u64,
    pub(super) stored_bytes: u64,
    /// Bytes of all three files.
    pub(super) naive_bytes: u64,
    /// What the store takes for them.
    pub(super) family_stored_bytes: u64,
}

impl Outcome {
    /// Fails if anything came back changed.
    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.identical {
            return self.kv_cache.check();
        }
        Err(CliError::Mismatch {
            what: self.differing.join(", "),
        })
    }

    pub(super) fn text(&self) -> String {
        let shared = &self.deduplication;
        let tune = &self.fine_tune;
        let mut rows = vec![row([
            "step",
            "size",
            "seconds",
            "throughput",
            "floor",
            "ratio",
            "the floor is",
        ])];
        rows.extend(self.steps.iter().map(|step| {
            vec![
                step.step.to_owned(),
                bytes(step.bytes),
                format!("{:.2}", step.elapsed_s),
                speed(step.bytes_per_s),
                speed(step.floor_bytes_per_s),
                format!("{:.2}", step.ratio),
                step.limited_by.to_owned(),
            ]
        }));
        format!(
            "model: {}, SHA-256 {}\n\
             second version: {} of {} tensors shared, {} new ({}), {} stored instead of {}\n\
             fine-tune: {} of {} tensors found and stored as deltas, {} stored\n\
             all three: {} stored for {}, ratio {:.3}\n\
             {}\n\
             this machine ({}): write and sync {}, read {}, SHA-256 {} a core, {} cores\n\
             restored: {}\n\n{}",
            bytes(self.model_bytes),
            self.sha256,
            shared.deduplicated_tensors,
            shared.tensors,
            shared.new_tensors,
            shared.changed_tensor,
            bytes(shared.second_stored_bytes),
            bytes(shared.first_stored_bytes),
            tune.delta_tensors,
            tune.tensors,
            bytes(tune.stored_bytes),
            bytes(tune.family_stored_bytes),
            bytes(tune.naive_bytes),
            tune.family_stored_bytes as f64 / tune.naive_bytes.max(1) as f64,
            self.kv_cache.text(),
            self.floor.mode,
            speed(self.floor.write_bytes_per_s),
            speed(self.floor.read_bytes_per_s),
            speed(self.floor.sha256_bytes_per_s),
            self.floor.cores,
            if self.identical {
                "all versions byte for byte"
            } else {
                "NOT what was stored"
            },
            table(&rows, &[1, 2, 3, 4, 5]),
        )
    }
}
