//! Contenders that take turns.

use tier_nvme::bench::{BenchError, Contender, Sample, Work, measure};

/// A contender and what its turns took.
pub(super) struct Lane<'a> {
    contender: &'a mut dyn Contender,
    pub(super) samples: Vec<Sample>,
}

impl<'a> Lane<'a> {
    pub(super) fn new(contender: &'a mut dyn Contender) -> Self {
        Self {
            contender,
            samples: Vec::new(),
        }
    }

    pub(super) fn name(&self) -> String {
        self.contender.name()
    }

    /// Median time of a turn in seconds.
    pub(super) fn elapsed_s(&self) -> f64 {
        let elapsed = self
            .samples
            .iter()
            .map(|sample| sample.elapsed.as_secs_f64());
        quantile(elapsed.collect(), 0.5)
    }

    /// Median processor time of a turn in seconds.
    pub(super) fn cpu_s(&self) -> f64 {
        let cpu = self.samples.iter().map(|sample| sample.cpu.as_secs_f64());
        quantile(cpu.collect(), 0.5)
    }

    /// Bytes written in all turns.
    pub(super) fn written_bytes(&self) -> u64 {
        self.samples.iter().map(|sample| sample.written_bytes).sum()
    }
}

/// Lets all take a turn to warm up, and then one in each round, each round beginning with another.
pub(super) fn race(lanes: &mut [Lane<'_>], work: &Work, rounds: u32) -> Result<(), BenchError> {
    for lane in lanes.iter_mut() {
        measure(lane.contender, work, 0)?;
    }
    let count = lanes.len();
    for round in 1..=rounds {
        for place in 0..count {
            if let Some(lane) = lanes.get_mut((round as usize + place) % count) {
                let sample = measure(lane.contender, work, u64::from(round))?;
                lane.samples.push(sample);
            }
        }
    }
    Ok(())
}

/// The value at a share of the sorted values.
pub(super) fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let place = (last as f64 * share).round() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    struct Named<'a>(char, &'a RefCell<String>);

    impl Contender for Named<'_> {
        fn name(&self) -> String {
            self.0.to_string()
        }

        fn is_durable(&self) -> bool {
            true
        }

        fn prepare(&mut self, _work: &Work, turn: u64) -> Result<(), BenchError> {
            self.1.borrow_mut().push_str(&turn.to_string());
            Ok(())
        }

        fn run(&mut self, _work: &Work, _turn: u64) -> Result<(), BenchError> {
            self.1.borrow_mut().push(self.0);
            Ok(())
        }
    }

    #[test]
    fn contenders_take_turns_after_a_first_one_that_does_not_count() {
        let order = RefCell::new(String::new());
        let (mut a, mut b) = (Named('a', &order), Named('b', &order));
        let mut lanes = [Lane::new(&mut a), Lane::new(&mut b)];
        assert!(race(&mut lanes, &Work::PUT_4_KIB, 3).is_ok());
        assert_eq!(lanes[0].samples.len(), 3);
        assert_eq!(*order.borrow(), "0a0b1b1a2a2b3b3a");
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        assert_eq!(quantile(vec![3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(vec![4.0, 1.0, 3.0, 2.0, 5.0], 0.25), 2.0);
        assert!(quantile(Vec::new(), 0.5).is_nan());
    }
}
