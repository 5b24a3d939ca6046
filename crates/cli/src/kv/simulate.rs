//! `stepwell kv simulate`.

mod curves;
mod outcome;

use std::io::Write;
use std::path::PathBuf;

use blockmgr::policy::PolicyKind;
use blockmgr::simulate::{Workload, hit_ceiling, optimum, simulate};
use blockmgr::trace::TraceReader;
use clap::Args;

use self::outcome::{Outcome, Row};
use crate::error::CliError;
use crate::report::Report;
use crate::target::Target;

/// What `kv simulate` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The trace: a JSON object a line, with timestamp, input_length, output_length and hash_ids.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Policies, separated by commas: adaptive, lru, multi-lru, s3-fifo, arc, w-tiny-lfu, priority, lineage; or all.
    #[arg(long, value_name = "NAMES", default_value = "all")]
    policies: String,
    /// Sizes of the pool in blocks, separated by commas.
    #[arg(long, value_name = "BLOCKS", value_delimiter = ',', required = true, value_parser = clap::value_parser!(u32).range(1..))]
    capacities: Vec<u32>,
    /// Write the result as a page with curves.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Replace the report that is there.
    #[arg(long, requires = "report")]
    force: bool,
}

pub(crate) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let policies = policies(&arguments.policies)?;
    let mut capacities = arguments.capacities.clone();
    capacities.sort_unstable();
    capacities.dedup();
    // The name is refused before time is spent on what is to be in it.
    let page = arguments.report.as_deref();
    let page = page
        .map(|path| Target::open(path, arguments.force))
        .transpose()?;
    let workload: Workload = TraceReader::open(&arguments.trace)?.collect::<Result<_, _>>()?;
    let outcome = outcome(report, arguments, &workload, &policies, &capacities);
    report.answer(&outcome, || outcome.text())?;
    if let (Some(mut page), Some(path)) = (page, &arguments.report) {
        page.write_all(curves::page(&outcome)?.as_bytes())
            .map_err(|source| CliError::file("write", path, source))?;
        page.publish()?;
    }
    Ok(())
}

fn policies(names: &str) -> Result<Vec<PolicyKind>, CliError> {
    let mut policies = Vec::new();
    for name in names.split(',').map(str::trim) {
        let named = match name {
            "all" => PolicyKind::ALL.to_vec(),
            name => vec![name.parse().map_err(|unknown| CliError::Usage {
                reason: format!("{unknown}, or all"),
            })?],
        };
        for policy in named {
            if !policies.contains(&policy) {
                policies.push(policy);
            }
        }
    }
    Ok(policies)
}

fn outcome(
    report: &Report,
    arguments: &Arguments,
    workload: &Workload,
    policies: &[PolicyKind],
    capacities: &[u32],
) -> Outcome {
    let mut rows = Vec::new();
    for &capacity_blocks in capacities {
        report.note(&format!("simulating {capacity_blocks} blocks"));
        // A pool for every block that there is never evicts; a larger one would only take memory.
        let slots = capacity_blocks.min(workload.distinct_blocks());
        let optimum_hit_rate = optimum(workload, slots).rate();
        rows.extend(policies.iter().map(|&policy| Row {
            policy: policy.name(),
            capacity_blocks,
            hit_rate: simulate(workload, policy, slots).rate(),
            optimum_hit_rate,
            default: policy == PolicyKind::default(),
        }));
    }
    Outcome {
        trace: arguments.trace.display().to_string(),
        requests: workload.requests().len(),
        blocks: workload.total_blocks(),
        distinct_blocks: workload.distinct_blocks(),
        ceiling_hit_rate: hit_ceiling(workload).rate(),
        rows,
    }
}
