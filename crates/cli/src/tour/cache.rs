//! The KV step: a trace through tiers of memory and disk, with a restart in the middle.

use std::path::Path;
use std::time::Instant;

use blockmgr::Salt;
use blockmgr::movement::{TierId, Traffic};
use blockmgr::policy::PolicyKind;
use blockmgr::replay::{Replay, ReplayCounts};
use blockmgr::trace::{TraceReader, TraceRequest};
use serde::Serialize;
use weightstore::Progress;

use super::conversations;
use super::floor::Floor;
use super::step::{Step, Work};
use crate::error::CliError;
use crate::kv::{ReplayOutcome, Sizes, Tiers};
use crate::progress::ProgressLine;
use crate::quantity::bytes;

/// For the made trace, and blocks of G1, G2 and G3: the conversations fit none but the last.
const MADE_BLOCK_BYTES: usize = 64 << 10;
const MADE_BLOCKS: [usize; 3] = [64, 192, 1024];
/// The same for a given trace: shorter blocks, so that more of it is seen.
const GIVEN_BLOCK_BYTES: usize = 16 << 10;
const GIVEN_BLOCKS: [usize; 3] = [256, 1024, 4096];
/// Of a given trace, the requests until so many blocks are replayed, so that the tour ends soon.
const TRACE_BLOCKS_MAX: usize = 8192;

/// The requests of the step.
pub(super) struct Requests {
    /// The file that they are from, if one was given.
    trace: Option<String>,
    requests: Vec<TraceRequest>,
}

impl Requests {
    /// The first requests of a trace, or made ones.
    pub(super) fn take(trace: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = trace else {
            return Ok(Self {
                trace: None,
                requests: conversations::make(),
            });
        };
        let mut requests = Vec::new();
        let mut blocks = 0;
        for request in TraceReader::open(path)? {
            let request = request?;
            blocks += request.hash_ids.len();
            requests.push(request);
            if blocks >= TRACE_BLOCKS_MAX {
                break;
            }
        }
        Ok(Self {
            trace: Some(path.display().to_string()),
            requests,
        })
    }
}

/// What became of the blocks.
#[derive(Debug, Serialize)]
pub(super) struct Cache {
    /// The given trace, or null.
    trace: Option<String>,
    block_bytes: usize,
    #[serde(flatten)]
    replay: ReplayOutcome,
    restart: Restart,
}

/// What the restart left.
#[derive(Debug, Default, Serialize)]
struct Restart {
    /// Requests served before.
    after_requests: u64,
    /// Blocks on disk before.
    stored_blocks: u64,
    /// Blocks that could be matched again.
    restored_blocks: u64,
    /// Blocks of later requests that came from the disk.
    hits: u64,
}

impl Cache {
    /// Replays the requests in `folder`, the second half with what the disk had kept of the first.
    pub(super) fn replay(
        folder: &Path,
        requests: Requests,
        floor: &Floor,
        progress: &ProgressLine,
    ) -> Result<(Self, Step), CliError> {
        let (blocks, block_bytes) = match requests.trace {
            None => (MADE_BLOCKS, MADE_BLOCK_BYTES),
            Some(_) => (GIVEN_BLOCKS, GIVEN_BLOCK_BYTES),
        };
        let sizes = Sizes {
            blocks,
            block_bytes,
            policy: PolicyKind::default(),
            model: "tour".to_owned(),
        };
        let (first, second) = requests.requests.split_at(requests.requests.len() / 2);
        let mut run = Run::default();
        let started = Instant::now();
        let before = Tiers::open(&sizes, Some(folder), None)?;
        run.serve(&before, &sizes, first, progress)?;
        let mut restart = Restart {
            after_requests: run.counts.requests,
            stored_blocks: stored_blocks(&before),
            ..Restart::default()
        };
        before.close()?;
        let after = Tiers::open(&sizes, Some(folder), None)?;
        let reopened = after.cache.reopened();
        restart.restored_blocks = reopened.map_or(0, |found| found.restored_blocks);
        let hits_before = run.disk().hits;
        run.serve(&after, &sizes, second, progress)?;
        restart.hits = run.disk().hits - hits_before;
        after.close()?;
        let elapsed_s = started.elapsed().as_secs_f64();

        let disk = run.disk();
        let engine = run.traffic.tiers.get(&TierId::G1);
        let work = Work {
            bytes: engine.map_or(0, |engine| engine.bytes_in),
            hashed_bytes: 0,
            read_bytes: disk.bytes_out,
            written_bytes: disk.bytes_in,
        };
        let cache = Self {
            trace: requests.trace,
            block_bytes,
            replay: ReplayOutcome::new(run.counts, &run.traffic, elapsed_s),
            restart,
        };
        Ok((cache, Step::new("kv replay", work, elapsed_s, floor)))
    }

    /// Fails if a block came back changed, or was lost in the restart.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let restart = &self.restart;
        if restart.restored_blocks < restart.stored_blocks {
            return Err(CliError::Mismatch {
                what: format!(
                    "{} of {} blocks of the KV cache were lost in the restart",
                    restart.stored_blocks - restart.restored_blocks,
                    restart.stored_blocks
                ),
            });
        }
        self.replay.check()
    }

    pub(super) fn text(&self) -> String {
        let hits = self.replay.tiers.iter();
        let hits = hits.map(|tier| format!("{} {}", tier.tier, tier.hits));
        format!(
            "KV cache: {} requests of {}, {} blocks of {}, hit rate {:.3} ({}), {} verified on arrival, {} mismatched\n\
             KV restart: after {} requests, {} of {} blocks on disk matched again, {} used",
            self.replay.requests,
            self.trace.as_deref().unwrap_or("made conversations"),
            self.replay.blocks,
            bytes(self.block_bytes as u64),
            self.replay.hit_rate,
            hits.collect::<Vec<_>>().join(", "),
            self.replay.verified_blocks,
            self.replay.mismatched_blocks,
            self.restart.after_requests,
            self.restart.restored_blocks,
            self.restart.stored_blocks,
            self.restart.hits,
        )
    }
}

fn stored_blocks(tiers: &Tiers) -> u64 {
    let pool = tiers.cache.pool_of(TierId::G3);
    pool.map_or(0, |pool| {
        let status = pool.status();
        (status.cached_blocks + status.in_use_blocks) as u64
    })
}

/// The sums over both processes.
#[derive(Default)]
struct Run {
    counts: ReplayCounts,
    traffic: Traffic,
}

impl Run {
    fn disk(&self) -> blockmgr::movement::TierTraffic {
        let disk = self.traffic.tiers.get(&TierId::G3);
        disk.copied().unwrap_or_default()
    }

    fn serve(
        &mut self,
        tiers: &Tiers,
        sizes: &Sizes,
        requests: &[TraceRequest],
        progress: &ProgressLine,
    ) -> Result<(), CliError> {
        let mut replay = Replay::new(&tiers.cache, Salt::new(&sizes.model));
        for request in requests {
            replay.request(request)?;
            tiers.cache.drain();
            let blocks = self.counts.blocks + replay.counts().blocks;
            progress.set(Progress {
                done_bytes: blocks * sizes.block_bytes as u64,
                total_bytes: 0,
            });
        }
        self.add_counts(replay.counts());
        self.add_traffic(&tiers.cache.traffic());
        Ok(())
    }

    fn add_counts(&mut self, more: ReplayCounts) {
        let counts = &mut self.counts;
        counts.requests += more.requests;
        counts.blocks += more.blocks;
        counts.hit_blocks += more.hit_blocks;
        counts.verified_blocks += more.verified_blocks;
        counts.mismatched_blocks += more.mismatched_blocks;
    }

    fn add_traffic(&mut self, more: &Traffic) {
        let traffic = &mut self.traffic;
        for (&tier, moved) in &more.tiers {
            let sum = traffic.tiers.entry(tier).or_default();
            sum.blocks_in += moved.blocks_in;
            sum.blocks_out += moved.blocks_out;
            sum.bytes_in += moved.bytes_in;
            sum.bytes_out += moved.bytes_out;
            sum.hits += moved.hits;
        }
        for (&reason, count) in &more.dropped {
            *traffic.dropped.entry(reason).or_default() += count;
        }
        for (&reason, count) in &more.missed {
            *traffic.missed.entry(reason).or_default() += count;
        }
        for (&mismatch, count) in &more.mismatches {
            *traffic.mismatches.entry(mismatch).or_default() += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    #[test]
    fn what_is_lost_or_changed_fails_the_tour() {
        let folder = tempfile::tempdir().unwrap();
        let floor = Floor {
            mode: "direct",
            write_bytes_per_s: 1e9,
            read_bytes_per_s: 1e9,
            sha256_bytes_per_s: 1e9,
            cores: 2,
        };
        let progress = Report::new(true).progress("kv replay");
        let request = |id| TraceRequest {
            hash_ids: vec![id, id + 1],
            ..TraceRequest::default()
        };
        let requests = Requests {
            trace: None,
            requests: [1, 5, 1, 5].map(request).into(),
        };
        let replayed = Cache::replay(&folder.path().join("kv"), requests, &floor, &progress);
        let (mut cache, step) = replayed.unwrap();
        assert_eq!(step.limited_by, "device");
        assert_eq!(cache.restart.restored_blocks, 4);
        assert_eq!(cache.restart.hits, 4);
        cache.check().unwrap();
        cache.restart.restored_blocks = 3;
        assert!(cache.check().is_err());
        cache.restart.restored_blocks = 4;
        cache.replay.mismatched_blocks = 1;
        assert!(cache.check().is_err());
    }
}
