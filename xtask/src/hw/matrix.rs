//! Configurations × crates.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::test_counts::Counts;

/// How one crate fared in one configuration.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// The configuration makes no difference to the crate.
    Unconcerned,
    /// The crate's tests ran.
    Tested {
        success: bool,
        counts: Counts,
        elapsed: Duration,
    },
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Unconcerned => "-".to_owned(),
            Self::Tested {
                success: true,
                counts,
                ..
            } if counts.passed == 0 => "no tests".into(),
            Self::Tested {
                success: true,
                counts,
                ..
            } => format!("{} ok", counts.passed),
            Self::Tested { counts, .. } if counts.failed > 0 => format!("{} FAIL", counts.failed),
            Self::Tested { .. } => "FAIL".to_owned(),
        };
        f.pad(&text)
    }
}

#[derive(Clone, Debug)]
enum Row {
    Run(Vec<Cell>),
    Skipped(String),
}

/// The whole matrix.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    crates: Vec<String>,
    rows: Vec<(String, Row)>,
}

impl Matrix {
    pub(super) fn new(crates: Vec<String>) -> Self {
        Self {
            crates,
            rows: Vec::new(),
        }
    }

    /// Adds a configuration that ran, with a cell for each crate.
    pub(super) fn push(&mut self, name: &str, cells: Vec<Cell>) {
        self.rows.push((name.to_owned(), Row::Run(cells)));
    }

    /// Adds a configuration that this machine does not have.
    pub(super) fn skip(&mut self, name: &str, why: String) {
        self.rows.push((name.to_owned(), Row::Skipped(why)));
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.rows.iter().flat_map(|(_, row)| match row {
            Row::Run(cells) => cells.as_slice(),
            Row::Skipped(_) => &[],
        })
    }

    pub(super) fn failed(&self) -> bool {
        self.cells()
            .any(|cell| matches!(cell, Cell::Tested { success: false, .. }))
    }

    /// The matrix with every cell's facts; `machine` says where it was taken.
    pub(super) fn to_json(&self, machine: &Value) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|(name, row)| match row {
                Row::Skipped(why) => {
                    json!({"configuration": name, "state": "skipped", "reason": why})
                }
                Row::Run(cells) => json!({
                    "configuration": name,
                    "state": "run",
                    "crates": self.crates.iter().zip(cells).filter_map(|(name, cell)| {
                        let Cell::Tested { success, counts, elapsed } = cell else { return None };
                        Some(json!({
                            "crate": name,
                            "passed": success,
                            "tests_passed": counts.passed,
                            "tests_failed": counts.failed,
                            "tests_ignored": counts.ignored,
                            "elapsed_s": elapsed.as_secs_f64(),
                        }))
                    }).collect::<Vec<_>>(),
                }),
            })
            .collect();
        json!({"machine": machine, "rows": rows})
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self
            .rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        let width = |column: usize| {
            self.crates
                .get(column)
                .map_or(0, |name| name.len().max("no tests".len()))
        };
        write!(f, "{:first$}", "")?;
        for (column, name) in self.crates.iter().enumerate() {
            write!(f, "  {name:>0$}", width(column))?;
        }
        for (name, row) in &self.rows {
            write!(f, "\n{name:first$}")?;
            match row {
                Row::Skipped(why) => write!(f, "  skipped: {why}")?,
                Row::Run(cells) => {
                    for (column, cell) in cells.iter().enumerate() {
                        write!(f, "  {cell:>0$}", width(column))?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tested(success: bool, passed: u64, failed: u64) -> Cell {
        let counts = Counts {
            passed,
            failed,
            ignored: 0,
            failures: Vec::new(),
        };
        Cell::Tested {
            success,
            counts,
            elapsed: Duration::from_millis(500),
        }
    }

    fn matrix(cell: Cell) -> Matrix {
        let mut matrix = Matrix::new(vec!["core-alloc".to_owned(), "tier-nvme".to_owned()]);
        matrix.push("io_uring", vec![Cell::Unconcerned, cell]);
        matrix.skip("NIXL", "not built yet".to_owned());
        matrix
    }

    #[test]
    fn columns_align() {
        let shown = matrix(tested(true, 12, 0)).to_string();
        let expected = "          core-alloc  tier-nvme\n\
                        io_uring           -      12 ok\n\
                        NIXL      skipped: not built yet";
        assert_eq!(shown, expected);
    }

    #[test]
    fn failures_show() {
        assert!(!matrix(tested(true, 0, 0)).failed());
        let failed = matrix(tested(false, 3, 2));
        assert!(failed.failed());
        assert!(failed.to_string().contains("2 FAIL"));
    }

    #[test]
    fn json_keeps_the_facts() {
        let value = matrix(tested(true, 12, 0)).to_json(&json!({"cores": 2}));
        assert_eq!(value["machine"]["cores"], 2);
        assert_eq!(value["rows"][0]["crates"][0]["crate"], "tier-nvme");
        assert_eq!(value["rows"][0]["crates"][0]["tests_passed"], 12);
        assert_eq!(value["rows"][1]["reason"], "not built yet");
    }
}
