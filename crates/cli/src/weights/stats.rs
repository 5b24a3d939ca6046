//! `stepwell weights stats`.

use clap::Args;
use serde::Serialize;
use weightstore::StoreStats;

use super::Location;
use crate::error::CliError;
use crate::quantity::bytes;
use crate::report::Report;
use crate::table::{row, table};

/// What `weights stats` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
}

/// What `weights stats` answers.
#[derive(Debug, Serialize)]
struct Stats {
    models: u64,
    tensors: u64,
    logical_bytes: u64,
    stored_bytes: u64,
    ratio: f64,
    saved: Saved,
    encodings: Vec<Encoding>,
    /// Tensors by how many bases are below them.
    depths: Vec<u64>,
    unnamed_tensors: u64,
    unnamed_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Saved {
    dedup_bytes: u64,
    delta_bytes: u64,
    codec_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Encoding {
    encoding: &'static str,
    chunks: u64,
    logical_bytes: u64,
    stored_bytes: u64,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let stats = Stats::from(arguments.location.open_for_reading()?.stats()?);
    report.answer(&stats, || stats.text())
}

impl From<StoreStats> for Stats {
    fn from(stats: StoreStats) -> Self {
        Self {
            models: stats.models,
            tensors: stats.tensors,
            logical_bytes: stats.logical_bytes,
            stored_bytes: stats.stored_bytes,
            ratio: stats.ratio,
            saved: Saved {
                dedup_bytes: stats.saved.dedup_bytes,
                delta_bytes: stats.saved.delta_bytes,
                codec_bytes: stats.saved.codec_bytes,
            },
            encodings: (stats.encodings.into_iter())
                .map(|encoding| Encoding {
                    encoding: encoding.encoding.name(),
                    chunks: encoding.chunks,
                    logical_bytes: encoding.logical_bytes,
                    stored_bytes: encoding.stored_bytes,
                })
                .collect(),
            depths: stats.depths,
            unnamed_tensors: stats.unnamed_tensors,
            unnamed_bytes: stats.unnamed_bytes,
        }
    }
}

impl Stats {
    fn text(&self) -> String {
        let mut text = format!(
            "{} models, {} distinct tensors, {} stored for {}, ratio {:.3}",
            self.models,
            self.tensors,
            bytes(self.stored_bytes),
            bytes(self.logical_bytes),
            self.ratio
        );
        if self.tensors == 0 {
            return text;
        }
        text.push_str(&format!(
            "\nsaved: {} by deduplication, {} by deltas, {} by codecs\n",
            bytes(self.saved.dedup_bytes),
            bytes(self.saved.delta_bytes),
            bytes(self.saved.codec_bytes),
        ));
        let mut rows = vec![row(["encoding", "chunks", "before", "after"])];
        rows.extend(self.encodings.iter().map(|encoding| {
            vec![
                encoding.encoding.to_owned(),
                encoding.chunks.to_string(),
                bytes(encoding.logical_bytes),
                bytes(encoding.stored_bytes),
            ]
        }));
        text.push_str(&table(&rows, &[1, 2, 3]));
        if self.unnamed_tensors > 0 {
            text.push_str(&format!(
                "{} tensors of {} have no name of their own: bases of deltas, or garbage (see gc)",
                self.unnamed_tensors,
                bytes(self.unnamed_bytes)
            ));
        }
        text
    }
}
