//! What a replay found.

use std::collections::BTreeMap;

use blockmgr::movement::{Reopened, Shortfall, Traffic};
use blockmgr::replay::ReplayCounts;
use serde::Serialize;

use crate::error::CliError;
use crate::quantity::bytes;
use crate::table::{row, table};

/// What `kv replay` answers.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Blocks of all prompts.
    pub(crate) blocks: u64,
    pub(crate) hit_rate: f64,
    /// Blocks that came from a lower tier with the right bytes.
    pub(crate) verified_blocks: u64,
    pub(crate) mismatched_blocks: u64,
    /// Blocks that were not taken down, or not brought up, by reason.
    pub(crate) dropped: BTreeMap<&'static str, u64>,
    pub(crate) tiers: Vec<Tier>,
    /// That fewer blocks fit on the disk than it was to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shortfall: Option<DiskShortfall>,
    pub(crate) elapsed_s: f64,
}

/// How many blocks fit on the disk, and what it said of the next one.
#[derive(Debug, Serialize)]
pub(crate) struct DiskShortfall {
    pub(crate) fitting_blocks: usize,
    pub(crate) reason: String,
}

/// What went into and out of one tier.
#[derive(Debug, Serialize)]
pub(crate) struct Tier {
    pub(crate) tier: &'static str,
    pub(crate) blocks_in: u64,
    pub(crate) blocks_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Blocks of requests that were found there.
    pub(crate) hits: u64,
}

impl Outcome {
    pub(crate) fn new(counts: ReplayCounts, traffic: &Traffic, elapsed_s: f64) -> Self {
        let mut dropped = BTreeMap::new();
        for (reason, count) in traffic.dropped.iter().chain(&traffic.missed) {
            *dropped.entry(reason.name()).or_default() += count;
        }
        let tiers = traffic.tiers.iter().map(|(tier, moved)| Tier {
            tier: tier.name(),
            blocks_in: moved.blocks_in,
            blocks_out: moved.blocks_out,
            bytes_in: moved.bytes_in,
            bytes_out: moved.bytes_out,
            hits: moved.hits,
        });
        Self {
            requests: counts.requests,
            blocks: counts.blocks,
            hit_rate: counts.hit_rate(),
            verified_blocks: counts.verified_blocks,
            // What a tier found wrong itself never arrived, and is wrong all the same.
            mismatched_blocks: counts.mismatched_blocks + traffic.mismatches.values().sum::<u64>(),
            dropped,
            tiers: tiers.collect(),
            shortfall: None,
            elapsed_s,
        }
    }

    /// With what is known of a disk that is too small.
    pub(crate) fn with_shortfall(mut self, shortfall: Option<Shortfall>) -> Self {
        self.shortfall = shortfall.map(|shortfall| DiskShortfall {
            fitting_blocks: shortfall.fitting_blocks,
            reason: shortfall.reason,
        });
        self
    }

    /// Fails if any block came back changed.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        if self.mismatched_blocks == 0 {
            return Ok(());
        }
        Err(CliError::Mismatch {
            what: format!(
                "{} of {} blocks came back changed",
                self.mismatched_blocks,
                self.verified_blocks + self.mismatched_blocks
            ),
        })
    }

    pub(crate) fn table_rows(&self) -> Vec<Vec<String>> {
        let mut rows = vec![row([
            "tier",
            "blocks in",
            "in",
            "blocks out",
            "out",
            "hits",
        ])];
        rows.extend(self.tiers.iter().map(|tier| {
            vec![
                tier.tier.to_owned(),
                tier.blocks_in.to_string(),
                bytes(tier.bytes_in),
                tier.blocks_out.to_string(),
                bytes(tier.bytes_out),
                tier.hits.to_string(),
            ]
        }));
        rows
    }

    pub(crate) fn heading(&self) -> String {
        let mut text = format!(
            "{} requests, {} blocks, hit rate {:.4}; {} blocks verified on arrival, {} mismatched, {:.1} s",
            self.requests,
            self.blocks,
            self.hit_rate,
            self.verified_blocks,
            self.mismatched_blocks,
            self.elapsed_s
        );
        if !self.dropped.is_empty() {
            let dropped = self
                .dropped
                .iter()
                .map(|(reason, count)| format!("{reason} {count}"));
            text.push_str(&format!(
                "\nnot moved: {}",
                dropped.collect::<Vec<_>>().join(", ")
            ));
        }
        if let Some(shortfall) = &self.shortfall {
            text.push_str(&format!(
                "\nonly {} blocks fit on the disk, fewer than --g3: {}",
                shortfall.fitting_blocks, shortfall.reason
            ));
        }
        text
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "{}\n\n{}",
            self.heading(),
            table(&self.table_rows(), &[1, 2, 3, 4, 5])
        )
    }
}

/// What a disk tier had when it was opened.
pub(super) fn reopened_text(reopened: &Reopened) -> String {
    let mut text = format!("the disk tier has {} blocks", reopened.restored_blocks);
    if reopened.surplus_blocks > 0 {
        text.push_str(&format!(", {} beyond --g3 go", reopened.surplus_blocks));
    }
    for (reason, count) in &reopened.ignored {
        text.push_str(&format!(", {count} ignored for their {reason}"));
    }
    text
}
