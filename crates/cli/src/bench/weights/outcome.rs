//! What `bench weights` found.

use std::path::Path;

use serde::Serialize;

use super::super::race::quantile;
use super::model::Cores;
use crate::quantity::{bytes, rate, speed};
use crate::table::{row, table};
use crate::tour::Floor;

/// The share of what device, hash and codec allow that the store is to reach.
const RATIO_MIN: f64 = 0.9;

/// One piece of work, done once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) elapsed_s: f64,
    pub(super) cpu_s: f64,
    /// Bytes that went to the store, or came from it.
    pub(super) stored_bytes: u64,
}

/// The floors and the store, once each.
pub(super) struct Round {
    pub(super) floor: Floor,
    pub(super) cores: Cores,
    pub(super) add_base: Turn,
    pub(super) add_tune: Turn,
    pub(super) get_base: Turn,
    pub(super) get_tune: Turn,
    pub(super) verify: Turn,
}

/// What `bench weights` answers.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    dir: String,
    model_bytes: u64,
    rounds: usize,
    quick: bool,
    device_write_bytes_per_s: f64,
    device_read_bytes_per_s: f64,
    cores: usize,
    hash_bytes_per_s: f64,
    encode_bytes_per_s: f64,
    decode_bytes_per_s: f64,
    difference_bytes_per_s: f64,
    undo_difference_bytes_per_s: f64,
    works: Vec<WorkOutcome>,
}

/// One piece of work; medians over the rounds.
#[derive(Debug, Serialize)]
struct WorkOutcome {
    work: &'static str,
    bytes: u64,
    stored_bytes: u64,
    elapsed_s: f64,
    cpu_s: f64,
    bytes_per_s: f64,
    /// What the device allows.
    device_bytes_per_s: f64,
    /// What hash and codec allow on all cores.
    cores_bytes_per_s: f64,
    /// By the lesser of both.
    ratio: f64,
    /// Processor time of hash and codec by all that was taken: what a busy machine can tell too.
    cpu_ratio: f64,
    /// The bar, and whether it is met; null with `--quick`, and where there is none.
    ratio_min: Option<f64>,
    is_met: Option<bool>,
}

/// Seconds that the device and all cores take for a piece of work at least.
struct Least {
    device_s: f64,
    cores_s: f64,
}

/// A piece of work: its name, how many models it is on, its turn of a round, what it takes at least for models of so many bytes, and
/// whether there is a bar.
type Kind = (
    &'static str,
    u64,
    fn(&Round) -> Turn,
    fn(&Round, f64) -> Least,
    bool,
);

const KINDS: [Kind; 5] = [
    ("add", 1, |round| round.add_base, add_base, true),
    (
        "add, a fine-tune",
        1,
        |round| round.add_tune,
        add_tune,
        false,
    ),
    ("get", 1, |round| round.get_base, get_base, true),
    (
        "get, a fine-tune",
        1,
        |round| round.get_tune,
        get_tune,
        false,
    ),
    ("verify both", 2, |round| round.verify, verify, false),
];

fn on_all_cores(round: &Round, bytes: f64, rates: &[f64]) -> f64 {
    let one_core_s: f64 = rates.iter().map(|rate| bytes / rate).sum();
    one_core_s / round.floor.cores as f64
}

fn add_base(round: &Round, bytes: f64) -> Least {
    let cores = &round.cores;
    Least {
        device_s: round.add_base.stored_bytes as f64 / round.floor.write_bytes_per_s,
        cores_s: on_all_cores(
            round,
            bytes,
            &[cores.leaf_bytes_per_s, cores.encode_bytes_per_s],
        ),
    }
}

/// The base is read, decoded and hashed too: nothing is stored against what was not verified.
fn add_tune(round: &Round, bytes: f64) -> Least {
    let cores = &round.cores;
    let hash = cores.leaf_bytes_per_s;
    Least {
        device_s: round.add_tune.stored_bytes as f64 / round.floor.write_bytes_per_s
            + round.add_base.stored_bytes as f64 / round.floor.read_bytes_per_s,
        cores_s: on_all_cores(
            round,
            bytes,
            &[
                hash,
                hash,
                cores.decode_bytes_per_s,
                cores.difference_bytes_per_s,
            ],
        ),
    }
}

fn get_base(round: &Round, bytes: f64) -> Least {
    let cores = &round.cores;
    let rates = [cores.leaf_bytes_per_s, cores.decode_bytes_per_s];
    get(round, bytes, round.get_base, &rates)
}

fn get_tune(round: &Round, bytes: f64) -> Least {
    let cores = &round.cores;
    let rates = [
        cores.leaf_bytes_per_s,
        cores.decode_bytes_per_s,
        cores.undo_difference_bytes_per_s,
    ];
    get(round, bytes, round.get_tune, &rates)
}

/// What is stored is read, goes through the cores at these rates, and is written.
fn get(round: &Round, bytes: f64, turn: Turn, rates: &[f64]) -> Least {
    Least {
        device_s: turn.stored_bytes as f64 / round.floor.read_bytes_per_s
            + bytes / round.floor.write_bytes_per_s,
        cores_s: on_all_cores(round, bytes, rates),
    }
}

/// Both models: the base is decoded twice.
fn verify(round: &Round, bytes: f64) -> Least {
    let cores = &round.cores;
    let base = round.add_base.stored_bytes as f64;
    Least {
        device_s: (round.verify.stored_bytes as f64 + base) / round.floor.read_bytes_per_s,
        cores_s: on_all_cores(
            round,
            bytes,
            &[
                cores.leaf_bytes_per_s,
                cores.leaf_bytes_per_s,
                cores.decode_bytes_per_s,
                cores.decode_bytes_per_s,
                cores.undo_difference_bytes_per_s,
            ],
        ),
    }
}

impl Outcome {
    pub(super) fn new(dir: &Path, model_bytes: u64, quick: bool, rounds: &[Round]) -> Self {
        let median = |of: &dyn Fn(&Round) -> f64| quantile(rounds.iter().map(of).collect(), 0.5);
        let works = KINDS
            .into_iter()
            .map(|kind| WorkOutcome::new(kind, model_bytes, quick, rounds));
        Self {
            dir: dir.display().to_string(),
            model_bytes,
            rounds: rounds.len(),
            quick,
            device_write_bytes_per_s: median(&|round| round.floor.write_bytes_per_s),
            device_read_bytes_per_s: median(&|round| round.floor.read_bytes_per_s),
            cores: rounds.first().map_or(1, |round| round.floor.cores),
            hash_bytes_per_s: median(&|round| round.cores.leaf_bytes_per_s),
            encode_bytes_per_s: median(&|round| round.cores.encode_bytes_per_s),
            decode_bytes_per_s: median(&|round| round.cores.decode_bytes_per_s),
            difference_bytes_per_s: median(&|round| round.cores.difference_bytes_per_s),
            undo_difference_bytes_per_s: median(&|round| round.cores.undo_difference_bytes_per_s),
            works: works.collect(),
        }
    }

    pub(super) fn text(&self) -> String {
        let caution = match self.quick {
            true => "; a quick run, nothing to rely on",
            false => "",
        };
        let mut rows = vec![row([
            "work",
            "bytes/s",
            "device",
            "cores",
            "ratio",
            "bar",
            "",
            "of processor s",
            "processor s",
            "s",
            "stored",
        ])];
        rows.extend(self.works.iter().map(WorkOutcome::row));
        format!(
            "{}: a model of {} and a fine-tune; medians of {} rounds{caution}\n\
             device: {} written, {} read; each of {} cores: hash {}, encode {}, decode {}, difference {}, undone {}\n\n{}",
            self.dir,
            bytes(self.model_bytes),
            self.rounds,
            speed(self.device_write_bytes_per_s),
            speed(self.device_read_bytes_per_s),
            self.cores,
            speed(self.hash_bytes_per_s),
            speed(self.encode_bytes_per_s),
            speed(self.decode_bytes_per_s),
            speed(self.difference_bytes_per_s),
            speed(self.undo_difference_bytes_per_s),
            table(&rows, &[1, 2, 3, 4, 5, 7, 8, 9, 10])
        )
    }
}

impl WorkOutcome {
    fn new(
        (work, models, turn, least, has_bar): Kind,
        model_bytes: u64,
        quick: bool,
        rounds: &[Round],
    ) -> Self {
        let median = |of: &dyn Fn(&Round) -> f64| quantile(rounds.iter().map(of).collect(), 0.5);
        let content = (models * model_bytes) as f64;
        let least = |round: &Round| least(round, model_bytes as f64);
        let ratio = median(&|round| {
            let least = least(round);
            least.device_s.max(least.cores_s) / turn(round).elapsed_s.max(1e-9)
        });
        let cpu_ratio = median(&|round| {
            least(round).cores_s * round.floor.cores as f64 / turn(round).cpu_s.max(1e-9)
        });
        let elapsed_s = median(&|round| turn(round).elapsed_s);
        let ratio_min = has_bar.then_some(RATIO_MIN).filter(|_| !quick);
        Self {
            work,
            bytes: models * model_bytes,
            stored_bytes: rounds.first().map_or(0, |round| turn(round).stored_bytes),
            elapsed_s,
            cpu_s: median(&|round| turn(round).cpu_s),
            bytes_per_s: rate(models * model_bytes, elapsed_s),
            device_bytes_per_s: median(&|round| content / least(round).device_s),
            cores_bytes_per_s: median(&|round| content / least(round).cores_s),
            ratio,
            cpu_ratio,
            ratio_min,
            is_met: ratio_min.map(|min| ratio >= min),
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.work.to_owned(),
            speed(self.bytes_per_s),
            speed(self.device_bytes_per_s),
            speed(self.cores_bytes_per_s),
            format!("{:.3}", self.ratio),
            self.ratio_min
                .map_or_else(String::new, |min| format!("≥ {min:.2}")),
            match self.is_met {
                Some(true) => "met".to_owned(),
                Some(false) => "missed".to_owned(),
                None => String::new(),
            },
            format!("{:.3}", self.cpu_ratio),
            format!("{:.2}", self.cpu_s),
            format!("{:.2}", self.elapsed_s),
            bytes(self.stored_bytes),
        ]
    }
}
