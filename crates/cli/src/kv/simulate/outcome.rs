//! What a simulation found.

use serde::Serialize;

use crate::table::table;

/// Hit rates over one trace.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) trace: String,
    pub(super) requests: usize,
    /// Blocks of all requests.
    pub(super) blocks: usize,
    pub(super) distinct_blocks: u32,
    /// Of a cache without limits.
    pub(super) ceiling_hit_rate: f64,
    /// By capacity, then in the order of the policies.
    pub(super) rows: Vec<Row>,
}

/// One policy at one capacity.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) policy: &'static str,
    pub(super) capacity_blocks: u32,
    pub(super) hit_rate: f64,
    pub(super) optimum_hit_rate: f64,
    /// Whether it is the policy that a pool has unless it is given another.
    pub(super) default: bool,
}

impl Outcome {
    pub(super) fn heading(&self) -> String {
        format!(
            "{}: {} requests, {} blocks, {} of them different; a cache without limits hits {:.4}",
            self.trace, self.requests, self.blocks, self.distinct_blocks, self.ceiling_hit_rate
        )
    }

    pub(super) fn text(&self) -> String {
        let table_rows = self.table_rows();
        let columns: Vec<usize> = (1..table_rows[0].len()).collect();
        format!("{}\n\n{}", self.heading(), table(&table_rows, &columns))
    }

    /// Capacities, each once.
    pub(super) fn capacities(&self) -> Vec<u32> {
        let mut capacities: Vec<u32> = self.rows.iter().map(|row| row.capacity_blocks).collect();
        capacities.dedup();
        capacities
    }

    /// The policies, with their hit rates by capacity.
    pub(super) fn curves(&self) -> Vec<(&'static str, bool, Vec<f64>)> {
        let mut curves: Vec<(&'static str, bool, Vec<f64>)> = Vec::new();
        for row in &self.rows {
            match curves.iter_mut().find(|curve| curve.0 == row.policy) {
                Some(curve) => curve.2.push(row.hit_rate),
                None => curves.push((row.policy, row.default, vec![row.hit_rate])),
            }
        }
        curves
    }

    /// The optimum's hit rates by capacity.
    pub(super) fn optimum(&self) -> Vec<f64> {
        let policy = self.rows.first().map(|row| row.policy);
        let rows = self.rows.iter().filter(|row| Some(row.policy) == policy);
        rows.map(|row| row.optimum_hit_rate).collect()
    }

    /// A row a policy and a column a capacity.
    pub(super) fn table_rows(&self) -> Vec<Vec<String>> {
        let mut head = vec!["policy".to_owned()];
        head.extend(self.capacities().iter().map(u32::to_string));
        let mut rows = vec![head];
        let line = |name: String, rates: &[f64]| {
            let rates = rates.iter().map(|rate| format!("{rate:.4}"));
            [name].into_iter().chain(rates).collect()
        };
        for (policy, default, rates) in self.curves() {
            let mark = if default { " (default)" } else { "" };
            rows.push(line(format!("{policy}{mark}"), &rates));
        }
        rows.push(line("optimum".to_owned(), &self.optimum()));
        rows
    }
}
