//! The memory of this process, and lines through numbers.

use std::io;
use std::path::Path;

use crate::error::CliError;

/// Where the kernel tells it.
const STATUS: &str = "/proc/self/status";

/// Resident memory of this process in KiB.
pub(super) fn resident_kib() -> Result<u64, CliError> {
    let failed = |source| CliError::file("read", Path::new(STATUS), source);
    let status = std::fs::read_to_string(STATUS).map_err(failed)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| failed(io::Error::other("it has no VmRSS")))
}

/// A straight line through points, by least squares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    pub(super) slope: f64,
    /// The slope's standard error; zero for fewer than three points.
    pub(super) slope_error: f64,
}

impl Fit {
    /// `None` for points that have no two places.
    pub(super) fn of(points: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let points: Vec<(f64, f64)> = points.collect();
        let count = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
        let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x_mean).powi(2)).sum();
        let common = points.iter();
        let common: f64 = common
            .map(|point| (point.0 - x_mean) * (point.1 - y_mean))
            .sum();
        if spread <= 0.0 {
            return None;
        }
        let slope = common / spread;
        let off = |(x, y): &(f64, f64)| (y - y_mean - slope * (x - x_mean)).powi(2);
        let rest: f64 = points.iter().map(off).sum();
        let freedom = (count - 2.0).max(1.0);
        Some(Self {
            slope,
            slope_error: (rest / freedom / spread).sqrt(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory() {
        assert!(resident_kib().unwrap() > 100);
    }

    #[test]
    fn a_line_goes_through_its_points_and_between_others() {
        let slope = |points: &[(f64, f64)]| Fit::of(points.iter().copied()).map(|fit| fit.slope);
        assert_eq!(slope(&[(1.0, 5.0), (2.0, 3.0)]), Some(-2.0));
        assert_eq!(slope(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]), Some(0.0));
        assert_eq!(slope(&[(1.0, 5.0), (1.0, 3.0)]), None);
        assert_eq!(slope(&[]), None);
        let error = |points: &[(f64, f64)]| Fit::of(points.iter().copied()).unwrap().slope_error;
        assert_eq!(error(&[(1.0, 5.0), (2.0, 3.0), (3.0, 1.0)]), 0.0);
        // Squares of 1/9, 4/9 and 1/9 off the line, one degree of freedom, a spread of 2.
        let expected = (6.0_f64 / 9.0 / 2.0).sqrt();
        assert!((error(&[(0.0, 0.0), (1.0, 1.0), (2.0, 0.0)]) - expected).abs() < 1e-12);
    }
}
