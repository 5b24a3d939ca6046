//! Cases that do the same work, measured in turns.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use crate::report::{BarReport, CaseReport, GroupReport, quantile};
use crate::settings::Settings;

/// The most operations in one turn.
const OPERATIONS_MAX: u64 = 1 << 32;

/// A benchmark: groups of cases, one after the other.
#[derive(Debug)]
pub struct Bench {
    name: String,
    settings: Settings,
    missed: usize,
}

impl Bench {
    /// A benchmark with a given effort.
    pub fn new(name: &str, settings: Settings) -> Self {
        Self {
            name: name.to_owned(),
            settings,
            missed: 0,
        }
    }

    /// A benchmark with the effort that the command line asks for.
    pub fn from_args(name: &str) -> Self {
        Self::new(name, Settings::from_args())
    }

    /// The same, with other words in front of the command line, which wins.
    pub fn from_args_or(name: &str, defaults: &[&str]) -> Self {
        Self::new(name, Settings::from_args_or(defaults))
    }

    /// The effort.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts a group.
    pub fn group<'a>(&'a mut self, title: &str) -> Group<'a> {
        Group {
            bench: self,
            title: title.to_owned(),
            cases: Vec::new(),
            bars: Vec::new(),
        }
    }

    /// Whether every bar that was judged is met.
    pub fn finish(self) -> bool {
        self.missed == 0
    }
}

/// Runs an operation so many times, and tells how long that took.
type Repeat<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

struct Case<'a> {
    name: String,
    repeat: Repeat<'a>,
    bytes: Option<u64>,
    /// Operations in one turn.
    operations: u64,
    turns_ns: Vec<f64>,
}

struct Bar {
    name: String,
    case: String,
    reference: String,
    bound: f64,
    at_least: bool,
}

/// Cases that do the same work in different ways. The first case is the reference of the table.
pub struct Group<'a> {
    bench: &'a mut Bench,
    title: String,
    cases: Vec<Case<'a>>,
    bars: Vec<Bar>,
}

impl<'a> Group<'a> {
    /// Adds a case: an operation whose result is kept from being optimised away.
    pub fn case<T>(&mut self, name: &str, operation: impl FnMut() -> T + 'a) -> &mut Self {
        self.case_after(name, || {}, operation)
    }

    /// Adds a case with something to do, untimed, before each of its turns.
    pub fn case_after<T>(
        &mut self,
        name: &str,
        prepare: impl FnMut() + 'a,
        mut operation: impl FnMut() -> T + 'a,
    ) -> &mut Self {
        self.case_batch(name, prepare, move |times| {
            for _ in 0..times {
                black_box(operation());
            }
        })
    }

    /// Adds a case that repeats its operation by itself, as one on several threads does.
    pub fn case_batch(
        &mut self,
        name: &str,
        mut prepare: impl FnMut() + 'a,
        mut repeat: impl FnMut(u64) + 'a,
    ) -> &mut Self {
        self.case_timed(name, move |times| {
            prepare();
            let start = Instant::now();
            repeat(times);
            start.elapsed()
        })
    }

    /// Adds a case that repeats its operation and takes the time by itself, as one must that has something to get
    /// ready before each.
    pub fn case_timed(
        &mut self,
        name: &str,
        repeat: impl FnMut(u64) -> Duration + 'a,
    ) -> &mut Self {
        self.cases.push(Case {
            name: name.to_owned(),
            repeat: Box::new(repeat),
            bytes: None,
            operations: 1,
            turns_ns: Vec::new(),
        });
        self
    }

    /// States how many bytes one operation of the latest case covers.
    pub fn bytes(&mut self, bytes: u64) -> &mut Self {
        if let Some(case) = self.cases.last_mut() {
            case.bytes = Some(bytes);
        }
        self
    }

    /// Demands that `case` is at least `bound` times as fast as `reference`.
    pub fn bar_at_least(
        &mut self,
        name: &str,
        case: &str,
        reference: &str,
        bound: f64,
    ) -> &mut Self {
        self.bar(name, case, reference, bound, true)
    }

    /// Demands that `case` takes at most `bound` times as long as `reference`.
    pub fn bar_at_most(
        &mut self,
        name: &str,
        case: &str,
        reference: &str,
        bound: f64,
    ) -> &mut Self {
        self.bar(name, case, reference, bound, false)
    }

    fn bar(
        &mut self,
        name: &str,
        case: &str,
        reference: &str,
        bound: f64,
        at_least: bool,
    ) -> &mut Self {
        self.bars.push(Bar {
            name: name.to_owned(),
            case: case.to_owned(),
            reference: reference.to_owned(),
            bound,
            at_least,
        });
        self
    }

    /// Runs the cases in turns and prints the report. A group that is not selected runs nothing.
    pub fn run(mut self) -> GroupReport {
        let settings = self.bench.settings.clone();
        if !settings.selects(&self.title) {
            self.cases.clear();
            self.bars.clear();
            return self.report(0, true);
        }
        for case in &mut self.cases {
            case.calibrate(&settings);
        }
        for round in 0..settings.rounds {
            // Turns start at another case each round, so that none always follows the same one.
            let len = self.cases.len().max(1);
            for place in 0..self.cases.len() {
                if let Some(case) = self.cases.get_mut((round + place) % len) {
                    let turn = case.turn();
                    case.turns_ns
                        .push(turn.as_nanos() as f64 / case.operations as f64);
                }
            }
        }
        let report = self.report(settings.rounds, settings.quick);
        self.bench.missed += report
            .bars
            .iter()
            .filter(|bar| bar.met == Some(false))
            .count();
        print(&report, settings.json);
        report
    }

    fn report(&self, rounds: usize, quick: bool) -> GroupReport {
        GroupReport {
            bench: self.bench.name.clone(),
            title: self.title.clone(),
            rounds,
            cases: self.cases.iter().map(Case::report).collect(),
            bars: self
                .bars
                .iter()
                .filter_map(|bar| self.judge(bar, quick))
                .collect(),
        }
    }

    fn judge(&self, bar: &Bar, quick: bool) -> Option<BarReport> {
        let find = |name: &str| self.cases.iter().find(|case| case.name == name);
        let (case, reference) = (find(&bar.case)?, find(&bar.reference)?);
        let pairs = case.turns_ns.iter().zip(&reference.turns_ns);
        let mut ratios: Vec<f64> = match bar.at_least {
            true => pairs.map(|(case, reference)| reference / case).collect(),
            false => pairs.map(|(case, reference)| case / reference).collect(),
        };
        let ratio = quantile(&mut ratios, 0.5);
        let met = match bar.at_least {
            true => ratio >= bar.bound,
            false => ratio <= bar.bound,
        };
        Some(BarReport {
            name: bar.name.clone(),
            case: bar.case.clone(),
            reference: bar.reference.clone(),
            ratio,
            quartiles: (quantile(&mut ratios, 0.25), quantile(&mut ratios, 0.75)),
            bound: bar.bound,
            at_least: bar.at_least,
            met: (!quick).then_some(met),
        })
    }
}

impl Case<'_> {
    fn turn(&mut self) -> Duration {
        (self.repeat)(self.operations)
    }

    /// Finds how many operations fill a turn; warms up on the way.
    fn calibrate(&mut self, settings: &Settings) {
        let wanted = Duration::from_millis(settings.round_ms);
        loop {
            let turn = self.turn();
            if turn >= wanted || self.operations >= OPERATIONS_MAX {
                return;
            }
            let short = wanted.as_nanos() as f64 / turn.as_nanos().max(1) as f64;
            let factor = (short * 1.2).clamp(1.2, 100.0);
            self.operations = (self.operations as f64 * factor).ceil() as u64;
        }
    }

    fn report(&self) -> CaseReport {
        let mut turns = self.turns_ns.clone();
        CaseReport {
            name: self.name.clone(),
            median_ns: quantile(&mut turns, 0.5),
            min_ns: quantile(&mut turns, 0.0),
            bytes: self.bytes,
        }
    }
}

fn print(report: &GroupReport, json: bool) {
    let text = match json {
        true => serde_json::to_string(report).unwrap_or_else(|error| error.to_string()),
        false => report.to_string(),
    };
    // A closed pipe is the reader's choice, not a failure of the benchmark.
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::{Bench, Settings};
    use std::cell::RefCell;

    #[test]
    fn cases_run_in_turns() {
        let order = RefCell::new(String::new());
        let mut bench = Bench::new("test", Settings::quick());
        let mut group = bench.group("turns");
        for name in ["a", "b"] {
            let order = &order;
            group.case_after(
                name,
                move || order.borrow_mut().push_str(name),
                std::thread::yield_now,
            );
        }
        group.run();
        // Once each to calibrate, then three rounds, each from another start.
        assert_eq!(*order.borrow(), "abab".to_owned() + "ba" + "ab");
    }

    #[test]
    fn bars_are_judged_by_the_same_round() {
        let settings = Settings {
            rounds: 9,
            round_ms: 1,
            ..Settings::full()
        };
        let mut bench = Bench::new("test", settings);
        let work = |times: u64| (0..times).fold(1u64, |sum, n| std::hint::black_box(sum ^ n));
        let mut group = bench.group("work");
        group.case("long", move || work(10_000));
        group.case("short", move || work(100));
        group.bar_at_least("short is faster", "short", "long", 10.0);
        group.bar_at_most("long is not shorter", "long", "short", 1.0);
        let report = group.run();
        assert_eq!(report.bars[0].met, Some(true), "{report}");
        assert_eq!(report.bars[1].met, Some(false), "{report}");
        assert!(!bench.finish());
    }
}
