//! `stepwell kv replay`.

mod acknowledgements;
mod outcome;
mod picture;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use blockmgr::Salt;
use blockmgr::movement::{MoveSink, Traffic};
use blockmgr::policy::PolicyKind;
use blockmgr::replay::Replay;
use blockmgr::trace::{TraceReader, TraceRequest};
use clap::Args;
use metrics_exporter_prometheus::PrometheusBuilder;
use weightstore::Progress;

use self::acknowledgements::Acknowledgements;
pub(crate) use self::outcome::Outcome;
use super::tiers::{Sizes, Tiers};
use crate::error::CliError;
use crate::interruption::ScratchDirectory;
use crate::quantity::parse_bytes;
use crate::report::Report;
use crate::target::Target;

/// Moments at which the traffic is noted.
const SAMPLES_MAX: usize = 200;

/// What `kv replay` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The trace: a JSON object a line, with timestamp, input_length, output_length and hash_ids.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Blocks of the engine's memory.
    #[arg(long, value_name = "BLOCKS")]
    g1: usize,
    /// Blocks of host memory below it; 0 for none.
    #[arg(long, value_name = "BLOCKS", default_value_t = 0)]
    g2: usize,
    /// Blocks of the disk tier; 0 for none.
    #[arg(long, value_name = "BLOCKS", default_value_t = 0)]
    g3: usize,
    /// A remote tier.
    #[arg(long, value_name = "URL")]
    g4: Option<String>,
    /// Bytes a block, such as 65536 or 64KiB; a multiple of 4096 with a disk tier.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    block_bytes: u64,
    /// Which blocks leave a full tier: adaptive, lru, multi-lru, s3-fifo, arc, w-tiny-lfu, priority or lineage.
    #[arg(long, value_name = "NAME", default_value = "adaptive")]
    policy: PolicyKind,
    /// The directory of the disk tier, which stays; without it one of its own that is removed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The model that blocks are of; those of other models on the disk tier don't match.
    #[arg(long, value_name = "NAME", default_value = "replay")]
    model: String,
    /// Write the result as a page with pictures.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write what was counted and measured in the text format of Prometheus.
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    /// Replace the files that are there.
    #[arg(long)]
    force: bool,
    /// Note each move to the disk tier in this file, when it begins and when it is acknowledged.
    #[arg(long, value_name = "FILE", hide = true)]
    acknowledgements: Option<PathBuf>,
}

impl Arguments {
    fn sizes(&self) -> Result<Sizes, CliError> {
        if self.g4.is_some() {
            return Err(CliError::Usage {
                reason: "--g4 is not there yet: this program has no remote tier; leave it out"
                    .to_owned(),
            });
        }
        for (name, value) in [
            ("--g1", self.g1 as u64),
            ("--block-bytes", self.block_bytes),
        ] {
            if value == 0 {
                return Err(CliError::Usage {
                    reason: format!("{name} is 0, and must be at least 1"),
                });
            }
        }
        if self.dir.is_some() && self.g3 == 0 {
            return Err(CliError::Usage {
                reason: "--dir is the directory of the disk tier, which --g3 must give blocks"
                    .to_owned(),
            });
        }
        let block_bytes = usize::try_from(self.block_bytes);
        Ok(Sizes {
            blocks: [self.g1, self.g2, self.g3],
            block_bytes: block_bytes.map_err(|_| CliError::Usage {
                reason: "--block-bytes is more than this machine can address".to_owned(),
            })?,
            policy: self.policy,
            model: self.model.clone(),
        })
    }
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let sizes = arguments.sizes()?;
    // The names are refused before time is spent on what is to be under them.
    let target = |path: &Option<PathBuf>| {
        let path = path.as_deref();
        path.map(|path| Target::open(path, arguments.force))
            .transpose()
    };
    let page = target(&arguments.report)?;
    let metrics = target(&arguments.metrics)?;
    let requests = TraceReader::open(&arguments.trace)?;
    let scratch = match (&arguments.dir, arguments.g3) {
        (None, 1..) => Some(ScratchDirectory::make(
            &std::env::temp_dir(),
            ".stepwell-kv-",
        )?),
        _ => None,
    };
    let folder = scratch.as_ref().map(ScratchDirectory::path);
    let folder = arguments.dir.as_deref().or(folder);
    let recorder = PrometheusBuilder::new().build_recorder();
    let replayed = metrics::with_local_recorder(&recorder, || {
        replay(report, arguments, &sizes, folder, requests)
    });
    let removed = scratch.map_or(Ok(()), ScratchDirectory::remove);
    let Replayed {
        outcome,
        samples,
        requests,
    } = replayed?;
    report.answer(&outcome, || outcome.text())?;
    if let (Some(page), Some(path)) = (page, &arguments.report) {
        let html = picture::page(requests, &sizes, &outcome, &samples)?;
        publish(page, path, &html)?;
    }
    if let (Some(metrics), Some(path)) = (metrics, &arguments.metrics) {
        publish(metrics, path, &recorder.handle().render())?;
    }
    removed?;
    outcome.check()
}

fn publish(mut target: Target, path: &Path, text: &str) -> Result<(), CliError> {
    let written = target.write_all(text.as_bytes());
    written.map_err(|source| CliError::file("write", path, source))?;
    target.publish()
}

/// How much had moved after so many requests.
#[derive(Debug)]
struct Sample {
    requests: u64,
    traffic: Traffic,
}

struct Replayed {
    outcome: Outcome,
    samples: Vec<Sample>,
    /// What the page draws curves from. A trace that comes through a pipe can't be read twice.
    requests: Vec<TraceRequest>,
}

fn replay(
    report: &Report,
    arguments: &Arguments,
    sizes: &Sizes,
    folder: Option<&Path>,
    requests: TraceReader<impl std::io::BufRead>,
) -> Result<Replayed, CliError> {
    let noted = arguments.acknowledgements.as_deref();
    let noted = noted.map(Acknowledgements::open).transpose()?;
    let noted = noted.map(|noted| Arc::new(noted) as Arc<dyn MoveSink>);
    let tiers = Tiers::open(sizes, folder, noted)?;
    for damage in tiers.damage() {
        report.note(&format!("the disk tier is damaged: {damage}"));
    }
    if let Some(reopened) = tiers.cache.reopened() {
        report.note(&outcome::reopened_text(reopened));
    }
    let progress = report.progress("replay");
    let mut samples = Vec::new();
    let mut apart = 1;
    let mut replay = Replay::new(&tiers.cache, Salt::new(&sizes.model));
    let started = Instant::now();
    let mut kept = Vec::new();
    for request in requests {
        let request = request?;
        replay.request(&request)?;
        tiers.cache.drain();
        let counts = replay.counts();
        progress.set(Progress {
            done_bytes: counts.blocks.saturating_mul(arguments.block_bytes),
            total_bytes: 0,
        });
        if arguments.report.is_none() {
            continue;
        }
        kept.push(request);
        if counts.requests.is_multiple_of(apart) {
            samples.push(Sample {
                requests: counts.requests,
                traffic: tiers.cache.traffic(),
            });
            if samples.len() > SAMPLES_MAX {
                apart *= 2;
                samples.retain(|sample| sample.requests.is_multiple_of(apart));
            }
        }
    }
    let elapsed_s = started.elapsed().as_secs_f64();
    let outcome = Outcome::new(replay.counts(), &tiers.cache.traffic(), elapsed_s)
        .with_shortfall(tiers.cache.shortfall());
    tiers.cache.record_metrics();
    tiers.close()?;
    Ok(Replayed {
        outcome,
        samples,
        requests: kept,
    })
}
