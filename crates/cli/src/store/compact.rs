//! `stepwell store compact`.

use std::time::Instant;

use clap::Args;
use serde::Serialize;
use tier_nvme::CompactionReport;

use super::location::Location;
use super::verify::DamagedItem;
use crate::error::CliError;
use crate::quantity::bytes;
use crate::report::Report;

/// What `store compact` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
}

/// What `store compact` answers.
#[derive(Debug, Serialize)]
struct Compacted {
    segments_compacted: u64,
    segments_removed: u64,
    values_moved: u64,
    bytes_moved: u64,
    reserved_bytes_before: u64,
    reserved_bytes_after: u64,
    damage: Vec<DamagedItem>,
    elapsed_s: f64,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let started = Instant::now();
    // Models may be moved too: compaction changes no value.
    let store = arguments.location.open_unchanged()?;
    let reserved_bytes_before = store.stats().reserved_bytes;
    let found = store.compact()?;
    let reserved_bytes_after = store.stats().reserved_bytes;
    report.closed(store.close())?;
    let elapsed_s = started.elapsed().as_secs_f64();
    let answer = Compacted::new(
        found,
        [reserved_bytes_before, reserved_bytes_after],
        elapsed_s,
    );
    report.answer(&answer, || answer.text())?;
    match answer.damage.len() {
        0 => Ok(()),
        count => Err(CliError::Damaged {
            count,
            checked: answer.values_moved + count as u64,
            remedy: "put what is named again from a copy",
        }),
    }
}

impl Compacted {
    fn new(found: CompactionReport, reserved_bytes: [u64; 2], elapsed_s: f64) -> Self {
        let [reserved_bytes_before, reserved_bytes_after] = reserved_bytes;
        Self {
            segments_compacted: found.segments_compacted,
            segments_removed: found.segments_removed,
            values_moved: found.values_moved,
            bytes_moved: found.bytes_moved,
            reserved_bytes_before,
            reserved_bytes_after,
            damage: found.damage.into_iter().map(DamagedItem::new).collect(),
            elapsed_s,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "moved {} values ({}) out of {} segments, gave {} segments back, {} reserved instead of {}, {:.2} s\n",
            self.values_moved,
            bytes(self.bytes_moved),
            self.segments_compacted,
            self.segments_removed,
            bytes(self.reserved_bytes_after),
            bytes(self.reserved_bytes_before),
            self.elapsed_s,
        );
        self.damage
            .iter()
            .for_each(|item| text.push_str(&item.text()));
        text
    }
}
