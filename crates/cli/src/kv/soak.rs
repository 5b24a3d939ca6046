//! `stepwell kv soak`.

mod memory;

use std::path::PathBuf;
use std::time::Instant;

use blockmgr::Salt;
use blockmgr::movement::Traffic;
use blockmgr::replay::Replay;
use blockmgr::trace::generate::{Generator, Scenario};
use blockmgr::trace::{TraceReader, TraceRequest};
use clap::Args;
use serde::Serialize;

use self::memory::{Fit, resident_kib};
use super::replay::Outcome as ReplayOutcome;
use super::tiers::{Sizes, Tiers};
use crate::error::CliError;
use crate::interruption::ScratchDirectory;
use crate::quantity::parse_bytes;
use crate::report::Report;

/// Requests of the trace that is made if none is given, and its seed.
const MADE_REQUESTS: usize = 6000;
const MADE_SEED: u64 = 1;

/// This part of the rounds, the first ones, fill memory for the first time and don't count.
const WARM_UP: usize = 5;
/// Rounds that warm up at least.
const WARM_UP_MIN: usize = 2;

/// Memory may rise by this part of it, or by so much, before it counts as a leak.
const RISEN_PART_MAX: f64 = 0.02;
const RISEN_MIN_KIB: f64 = 4096.0;

/// What `kv soak` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The trace that each round plays; without one, requests of several tenants are made.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// How long; the round that is under way then is finished.
    #[arg(long, value_name = "MINUTES", default_value_t = 30.0)]
    minutes: f64,
    /// Blocks of the engine's memory.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1000)]
    g1: usize,
    /// Blocks of host memory below it.
    #[arg(long, value_name = "BLOCKS", default_value_t = 4000)]
    g2: usize,
    /// Blocks of the disk tier.
    #[arg(long, value_name = "BLOCKS", default_value_t = 16_000)]
    g3: usize,
    /// Bytes a block, such as 65536 or 64KiB; a multiple of 4096.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "4KiB")]
    block_bytes: u64,
    /// Where the disk tier's directory is made, which is removed at the end; the temporary directory if not given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// How memory stood after a round.
#[derive(Debug, Clone, Serialize)]
struct Round {
    elapsed_s: f64,
    hit_rate: f64,
    verified_blocks: u64,
    resident_kib: u64,
}

/// How memory grew, by a straight line of least squares through the rounds after warming up.
#[derive(Debug, Serialize)]
struct Growth {
    warm_up_rounds: usize,
    fitted_rounds: usize,
    resident_kib_first: u64,
    resident_kib_last: u64,
    resident_kib_most: u64,
    slope_kib_per_minute: f64,
    /// Standard error of that slope.
    slope_error_kib_per_minute: f64,
    slope_kib_per_round: f64,
    /// From the first of the fitted rounds to the last.
    fitted_minutes: f64,
    /// What the line rises by in that time.
    risen_kib: f64,
}

impl Growth {
    fn check(&self) -> Result<(), CliError> {
        let risen_max_kib = (self.resident_kib_first as f64 * RISEN_PART_MAX).max(RISEN_MIN_KIB);
        if self.risen_kib <= risen_max_kib {
            return Ok(());
        }
        Err(CliError::Leak {
            risen_kib: self.risen_kib as u64,
            minutes: self.fitted_minutes,
            risen_max_kib: risen_max_kib as u64,
        })
    }
}

/// What `kv soak` answers.
#[derive(Debug, Serialize)]
struct Outcome {
    /// Over all rounds.
    #[serde(flatten)]
    total: ReplayOutcome,
    rounds: Vec<Round>,
    /// Absent if there were too few rounds for a line.
    memory: Option<Growth>,
}

impl Arguments {
    fn sizes(&self) -> Result<Sizes, CliError> {
        let usage = |reason: String| CliError::Usage { reason };
        if !(self.minutes > 0.0 && self.minutes.is_finite()) {
            return Err(usage("--minutes is a number above 0".to_owned()));
        }
        let sizes = [
            ("--g1", self.g1 as u64),
            ("--g2", self.g2 as u64),
            ("--g3", self.g3 as u64),
            ("--block-bytes", self.block_bytes),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, value)| *value == 0) {
            return Err(usage(format!("{name} is 0, and must be at least 1")));
        }
        let block_bytes = usize::try_from(self.block_bytes);
        Ok(Sizes {
            blocks: [self.g1, self.g2, self.g3],
            block_bytes: block_bytes.map_err(|_| {
                usage("--block-bytes is more than this machine can address".to_owned())
            })?,
            policy: blockmgr::policy::PolicyKind::default(),
            model: "soak".to_owned(),
        })
    }

    fn requests(&self) -> Result<Vec<TraceRequest>, CliError> {
        let requests = match &self.trace {
            Some(path) => TraceReader::open(path)?.collect::<Result<Vec<_>, _>>()?,
            None => Generator::new(Scenario::Tenants, MADE_SEED)
                .take(MADE_REQUESTS)
                .collect(),
        };
        if requests.is_empty() {
            return Err(CliError::Usage {
                reason: "the trace has no request, and nothing can be played".to_owned(),
            });
        }
        Ok(requests)
    }
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let sizes = arguments.sizes()?;
    let requests = arguments.requests()?;
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = ScratchDirectory::make(&parent, ".stepwell-kv-")?;
    let soaked = soak(report, arguments, &sizes, scratch.path(), &requests);
    let removed = scratch.remove();
    let outcome = soaked?;
    report.answer(&outcome, || outcome.text())?;
    removed?;
    outcome.total.check()?;
    outcome.memory.as_ref().map_or(Ok(()), Growth::check)
}

fn soak(
    report: &Report,
    arguments: &Arguments,
    sizes: &Sizes,
    folder: &std::path::Path,
    requests: &[TraceRequest],
) -> Result<Outcome, CliError> {
    let tiers = Tiers::open(sizes, Some(folder), None)?;
    let started = Instant::now();
    let span_ms = requests.last().map_or(0, |last| last.timestamp_ms) + 1;
    let mut rounds: Vec<Round> = Vec::new();
    let mut total = blockmgr::replay::ReplayCounts::default();
    while started.elapsed().as_secs_f64() < 60.0 * arguments.minutes {
        let number = rounds.len() as u64;
        // Nothing of an earlier round matches under another salt.
        let salt = Salt::new(&sizes.model).with_tenant(&number.to_string());
        let mut replay = Replay::new(&tiers.cache, salt);
        for request in requests {
            let request = TraceRequest {
                timestamp_ms: request.timestamp_ms + number * span_ms,
                ..request.clone()
            };
            replay.request(&request)?;
            tiers.cache.drain();
        }
        let counts = replay.counts();
        total = total.plus(&counts);
        let round = Round {
            elapsed_s: started.elapsed().as_secs_f64(),
            hit_rate: counts.hit_rate(),
            verified_blocks: counts.verified_blocks,
            resident_kib: resident_kib()?,
        };
        report.note(&format!(
            "round {number}: {:.0} s, hit rate {:.4}, {} blocks verified, {} KiB resident",
            round.elapsed_s, round.hit_rate, round.verified_blocks, round.resident_kib
        ));
        rounds.push(round);
    }
    let traffic: Traffic = tiers.cache.traffic();
    let outcome = Outcome {
        total: ReplayOutcome::new(total, &traffic, started.elapsed().as_secs_f64())
            .with_shortfall(tiers.cache.shortfall()),
        memory: growth(&rounds),
        rounds,
    };
    tiers.close()?;
    Ok(outcome)
}

fn growth(rounds: &[Round]) -> Option<Growth> {
    let warm_up_rounds = rounds.len().div_ceil(WARM_UP).max(WARM_UP_MIN);
    let fitted = rounds.get(warm_up_rounds..)?;
    let (first, last) = (fitted.first()?, fitted.last()?);
    let resident = |round: &Round| round.resident_kib as f64;
    let by_round = (0_u32..).zip(fitted);
    let by_round = by_round.map(|(number, round)| (f64::from(number), resident(round)));
    let by_minute = fitted.iter();
    let by_minute = by_minute.map(|round| (round.elapsed_s / 60.0, resident(round)));
    let by_minute = Fit::of(by_minute)?;
    let fitted_minutes = (last.elapsed_s - first.elapsed_s) / 60.0;
    Some(Growth {
        warm_up_rounds,
        fitted_rounds: fitted.len(),
        resident_kib_first: first.resident_kib,
        resident_kib_last: last.resident_kib,
        resident_kib_most: fitted.iter().map(|round| round.resident_kib).max()?,
        slope_kib_per_minute: by_minute.slope,
        slope_error_kib_per_minute: by_minute.slope_error,
        slope_kib_per_round: Fit::of(by_round)?.slope,
        fitted_minutes,
        risen_kib: by_minute.slope * fitted_minutes,
    })
}

impl Outcome {
    fn text(&self) -> String {
        let memory = match &self.memory {
            None => "too few rounds to say how memory grows; give more --minutes".to_owned(),
            Some(memory) => format!(
                "resident memory over {} rounds after {} of warming up: {} KiB to {} KiB, at most {} KiB; \
                 slope {:+.1} ± {:.1} KiB a minute, {:+.1} KiB a round",
                memory.fitted_rounds,
                memory.warm_up_rounds,
                memory.resident_kib_first,
                memory.resident_kib_last,
                memory.resident_kib_most,
                memory.slope_kib_per_minute,
                memory.slope_error_kib_per_minute,
                memory.slope_kib_per_round
            ),
        };
        format!(
            "{} rounds: {}\n{memory}",
            self.rounds.len(),
            self.total.text()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(resident_kib: impl Iterator<Item = u64>) -> Vec<Round> {
        let round = |(number, resident_kib): (u32, u64)| Round {
            elapsed_s: 30.0 * f64::from(number),
            hit_rate: 0.5,
            verified_blocks: 1,
            resident_kib,
        };
        (1_u32..).zip(resident_kib).map(round).collect()
    }

    #[test]
    fn a_leak_of_a_kibibyte_a_round_has_that_slope_whatever_the_first_rounds_did() {
        let leak = rounds((0..10).map(|round| if round < 2 { 1 } else { 5000 + round }));
        let growth = growth(&leak).unwrap();
        assert_eq!((growth.warm_up_rounds, growth.fitted_rounds), (2, 8));
        assert!((growth.slope_kib_per_round - 1.0).abs() < 1e-9);
        assert!((growth.slope_kib_per_minute - 2.0).abs() < 1e-9);
        assert!((growth.risen_kib - 7.0).abs() < 1e-9);
        assert!(growth.check().is_ok());
        let large = rounds((0..10).map(|round| 5000 + 1000 * round));
        assert!(super::growth(&large).unwrap().check().is_err());
    }

    #[test]
    fn a_few_rounds_have_no_slope() {
        assert!(growth(&rounds(0..2)).is_none());
        assert!(growth(&rounds(0..3)).is_none());
        assert!(growth(&rounds(0..4)).is_some());
    }
}
