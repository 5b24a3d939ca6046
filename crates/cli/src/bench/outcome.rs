//! What `bench nvme` found.

use serde::Serialize;
use tier_nvme::bench::{Action, Reopened, Work};

use super::race::{Lane, quantile};
use crate::quantity::speed;
use crate::table::{row, table};

/// The bars of what is no throughput.
const CPU_S_PER_GB_MAX: f64 = 0.25;
const KEYS_PER_S_MIN: f64 = 5e6;

/// What `bench nvme` answers.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) dir: String,
    pub(super) rounds: u32,
    pub(super) quick: bool,
    pub(super) floor_mode: &'static str,
    pub(super) store_engine: &'static str,
    pub(super) store_mode: &'static str,
    pub(super) works: Vec<WorkOutcome>,
    pub(super) reopen_after_kill: Opened,
    pub(super) reopen_after_close: Opened,
}

/// One piece of work.
#[derive(Debug, Serialize)]
pub(super) struct WorkOutcome {
    pub(super) work: &'static str,
    pub(super) title: &'static str,
    pub(super) value_bytes: usize,
    pub(super) values: usize,
    pub(super) depth: usize,
    /// The fastest of the raw loops.
    pub(super) floor: LaneOutcome,
    /// The others.
    pub(super) other_floors: Vec<LaneOutcome>,
    pub(super) store: LaneOutcome,
    /// The slab, whose blocks are the values.
    pub(super) slab: LaneOutcome,
    /// The median of its ratios.
    pub(super) slab_ratio: f64,
    /// Median over the rounds of the floor's time by the store's, and its quartiles.
    pub(super) ratio: f64,
    pub(super) ratio_lower_quartile: f64,
    pub(super) ratio_upper_quartile: f64,
    /// The bar; null where there is none.
    pub(super) ratio_min: Option<f64>,
    /// Whether it is met; null without a bar, and with `--quick`.
    pub(super) is_met: Option<bool>,
}

/// How one of them did it.
#[derive(Debug, Serialize)]
pub(super) struct LaneOutcome {
    pub(super) name: String,
    pub(super) elapsed_median_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) values_per_s: f64,
    pub(super) cpu_s_per_gb: f64,
    /// Bytes written to the device for each byte put; null for gets.
    pub(super) written_per_byte: Option<f64>,
}

/// A store that was opened again.
#[derive(Debug, Serialize)]
pub(super) struct Opened {
    pub(super) keys: u64,
    pub(super) elapsed_s: f64,
    pub(super) keys_per_s: f64,
    pub(super) batches_replayed: u64,
}

impl Opened {
    pub(super) fn new(reopened: &Reopened) -> Self {
        Self {
            keys: reopened.keys,
            elapsed_s: reopened.elapsed.as_secs_f64(),
            keys_per_s: reopened.keys_per_s(),
            batches_replayed: reopened.batches_replayed,
        }
    }
}

impl LaneOutcome {
    fn new(work: &Work, lane: &Lane<'_>) -> Self {
        let elapsed_s = lane.elapsed_s();
        let turn_bytes = work.turn_bytes() as f64;
        let put_bytes = turn_bytes * lane.samples.len() as f64;
        Self {
            name: lane.name(),
            elapsed_median_s: elapsed_s,
            bytes_per_s: turn_bytes / elapsed_s,
            values_per_s: work.values as f64 / elapsed_s,
            cpu_s_per_gb: lane.cpu_s() / turn_bytes * 1e9,
            written_per_byte: (work.action == Action::Put)
                .then(|| lane.written_bytes() as f64 / put_bytes),
        }
    }
}

impl WorkOutcome {
    /// Compares; nothing without a floor.
    pub(super) fn new(
        work: &Work,
        floors: &[Lane<'_>],
        store: &Lane<'_>,
        slab: &Lane<'_>,
    ) -> Option<Self> {
        let fastest = floors
            .iter()
            .min_by(|a, b| a.elapsed_s().total_cmp(&b.elapsed_s()))?;
        let ratios_of = |ours: &Lane<'_>| -> Vec<f64> {
            let pairs = fastest.samples.iter().zip(&ours.samples);
            pairs
                .map(|(floor, ours)| floor.elapsed.as_secs_f64() / ours.elapsed.as_secs_f64())
                .collect()
        };
        let ratios = ratios_of(store);
        let others = floors.iter().filter(|lane| !std::ptr::eq(*lane, fastest));
        let ratio = quantile(ratios.clone(), 0.5);
        Some(Self {
            work: work.id,
            title: work.title,
            value_bytes: work.value_bytes,
            values: work.values,
            depth: work.depth,
            floor: LaneOutcome::new(work, fastest),
            other_floors: others.map(|lane| LaneOutcome::new(work, lane)).collect(),
            store: LaneOutcome::new(work, store),
            slab: LaneOutcome::new(work, slab),
            slab_ratio: quantile(ratios_of(slab), 0.5),
            ratio,
            ratio_lower_quartile: quantile(ratios.clone(), 0.25),
            ratio_upper_quartile: quantile(ratios, 0.75),
            ratio_min: work.ratio_min,
            is_met: work.ratio_min.map(|min| ratio >= min),
        })
    }

    /// The throughput that says most: values for small ones, bytes for large ones.
    fn rate(&self, lane: &LaneOutcome) -> String {
        match self.value_bytes < 64 << 10 {
            true => format!("{:.1} k/s", lane.values_per_s / 1e3),
            false => speed(lane.bytes_per_s),
        }
    }
}

fn verdict(is_met: Option<bool>) -> &'static str {
    match is_met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "",
    }
}

impl Outcome {
    /// Forgets the verdicts of figures that nobody should rely on.
    pub(super) fn without_verdicts_if_quick(mut self) -> Self {
        if self.quick {
            self.works.iter_mut().for_each(|work| work.is_met = None);
        }
        self
    }

    /// The rows of the table of throughputs, the head first.
    pub(super) fn throughput_rows(&self) -> Vec<Vec<String>> {
        let head = [
            "work",
            "floor",
            "store",
            "ratio",
            "quartiles",
            "bar",
            "",
            "slab",
            "ratio",
        ];
        let mut rows = vec![row(head)];
        rows.extend(self.works.iter().map(|work| {
            vec![
                work.title.to_owned(),
                work.rate(&work.floor),
                work.rate(&work.store),
                format!("{:.3}", work.ratio),
                format!(
                    "{:.3} to {:.3}",
                    work.ratio_lower_quartile, work.ratio_upper_quartile
                ),
                work.ratio_min
                    .map_or_else(String::new, |min| format!("≥ {min:.2}")),
                verdict(work.is_met).to_owned(),
                work.rate(&work.slab),
                format!("{:.3}", work.slab_ratio),
            ]
        }));
        rows
    }

    /// The rows of the table of what else it costs, the head first.
    pub(super) fn cost_rows(&self) -> Vec<Vec<String>> {
        let judged = |met: bool| verdict((!self.quick).then_some(met)).to_owned();
        let mut rows = vec![row(["what", "floor", "store", "bar", ""])];
        for work in self
            .works
            .iter()
            .filter(|work| work.store.written_per_byte.is_some())
        {
            rows.push(vec![
                format!("processor seconds per GB, {}", work.title),
                format!("{:.3}", work.floor.cpu_s_per_gb),
                format!("{:.3}", work.store.cpu_s_per_gb),
                format!("≤ {CPU_S_PER_GB_MAX}"),
                judged(work.store.cpu_s_per_gb <= CPU_S_PER_GB_MAX),
            ]);
            let most = match work.value_bytes >= 1 << 20 {
                true => 1.02,
                false => 1.05,
            };
            let written = |lane: &LaneOutcome| lane.written_per_byte.unwrap_or(f64::NAN);
            rows.push(vec![
                format!("bytes written per byte, {}", work.title),
                format!("{:.3}", written(&work.floor)),
                format!("{:.3}", written(&work.store)),
                format!("≤ {most}"),
                judged(written(&work.store) <= most),
            ]);
        }
        let opened = [
            ("reopen after SIGKILL", &self.reopen_after_kill, true),
            ("reopen after a close", &self.reopen_after_close, false),
        ];
        for (what, opened, has_bar) in opened {
            rows.push(vec![
                format!("{what}, {} keys", opened.keys),
                String::new(),
                format!("{:.1} M keys/s", opened.keys_per_s / 1e6),
                match has_bar {
                    true => "≥ 5 M keys/s".to_owned(),
                    false => String::new(),
                },
                match has_bar {
                    true => judged(opened.keys_per_s >= KEYS_PER_S_MIN),
                    false => String::new(),
                },
            ]);
        }
        rows
    }

    /// What the figures are of.
    pub(super) fn heading(&self) -> String {
        let caution = match self.quick {
            true => "; a quick run, nothing to rely on",
            false => "",
        };
        format!(
            "{}: floor {}, store {} {}; medians of {} rounds in turns{caution}",
            self.dir, self.floor_mode, self.store_mode, self.store_engine, self.rounds
        )
    }

    pub(super) fn text(&self) -> String {
        format!(
            "{}\n\n{}\n{}",
            self.heading(),
            table(&self.throughput_rows(), &[1, 2, 3, 4, 5, 7, 8]),
            table(&self.cost_rows(), &[1, 2, 3])
        )
    }
}
