//! What a group of cases measured.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// One way of doing the work.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct CaseReport {
    /// Name of the case.
    pub name: String,
    /// Median over the rounds of nanoseconds per operation.
    pub median_ns: f64,
    /// Fastest round, in nanoseconds per operation.
    pub min_ns: f64,
    /// Bytes that one operation moves or covers, where that was stated.
    pub bytes: Option<u64>,
}

/// A bar between two cases.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct BarReport {
    /// What the bar says.
    pub name: String,
    /// The case that is judged.
    pub case: String,
    /// The case that it is judged by.
    pub reference: String,
    /// Median over the rounds of the ratio: the reference's time by the case's for a least speed-up,
    /// the case's time by the reference's for a most cost.
    pub ratio: f64,
    /// Lower and upper quartile of the ratio.
    pub quartiles: (f64, f64),
    /// The bar: the least or the most that the ratio may be.
    pub bound: f64,
    /// Whether `bound` is a least (a speed-up) rather than a most (a cost).
    pub at_least: bool,
    /// Whether the bar is met; not judged in a quick run.
    pub met: Option<bool>,
}

/// All cases of a group.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct GroupReport {
    /// Name of the benchmark.
    pub bench: String,
    /// Title of the group.
    pub title: String,
    /// Number of rounds.
    pub rounds: usize,
    /// The cases, in the order in which they were added. The first is the table's reference.
    pub cases: Vec<CaseReport>,
    /// The bars.
    pub bars: Vec<BarReport>,
}

/// The value in the middle of a share of sorted values.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let place = (last as f64 * share).round() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.1} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

fn ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 100.0 => format!("{ratio:.0}×"),
        ratio if ratio >= 10.0 => format!("{ratio:.1}×"),
        ratio if ratio >= 0.01 => format!("{ratio:.3}×"),
        ratio => format!("1/{:.0}", 1.0 / ratio),
    }
}

impl fmt::Display for GroupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = String::new();
        writeln!(
            table,
            "{}: {} ({} rounds)",
            self.bench, self.title, self.rounds
        )?;
        let width = self
            .cases
            .iter()
            .map(|case| case.name.chars().count())
            .max();
        let width = width.unwrap_or(0).max(4);
        let first = self.cases.first().map_or(f64::NAN, |case| case.median_ns);
        writeln!(
            table,
            "  {:width$}  {:>12}  {:>12}  {:>12}  {:>10}",
            "case", "median", "best", "to the first", "GB/s"
        )?;
        for case in &self.cases {
            let rate = case.bytes.map_or_else(String::new, |bytes| {
                format!("{:.2}", bytes as f64 / case.median_ns)
            });
            writeln!(
                table,
                "  {:width$}  {:>12}  {:>12}  {:>12}  {:>10}",
                case.name,
                duration(case.median_ns),
                duration(case.min_ns),
                ratio(case.median_ns / first),
                rate
            )?;
        }
        for bar in &self.bars {
            let sign = if bar.at_least { "≥" } else { "≤" };
            let verdict = match bar.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "not judged in a quick run",
            };
            writeln!(
                table,
                "  bar: {}: {} (quartiles {} to {}), wanted {sign} {}: {verdict}",
                bar.name,
                ratio(bar.ratio),
                ratio(bar.quartiles.0),
                ratio(bar.quartiles.1),
                ratio(bar.bound),
            )?;
        }
        f.write_str(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, quantile, ratio};

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let mut values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(quantile(&mut values, 0.5), 3.0);
        assert_eq!(quantile(&mut values, 0.0), 1.0);
        assert_eq!(quantile(&mut values, 1.0), 5.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(duration(12.34), "12.3 ns");
        assert_eq!(duration(12_340.0), "12.34 µs");
        assert_eq!(ratio(0.002), "1/500");
        assert_eq!(ratio(190.4), "190×");
    }
}
