//! How much effort a benchmark makes.

/// The effort of a benchmark and the form of its report.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) rounds: usize,
    pub(crate) round_ms: u64,
    pub(crate) json: bool,
    pub(crate) quick: bool,
    pub(crate) filter: Option<String>,
}

impl Settings {
    /// Few short rounds, to see that each case works.
    pub fn quick() -> Self {
        Self {
            rounds: 3,
            round_ms: 0,
            json: false,
            quick: true,
            filter: None,
        }
    }

    /// Enough rounds to measure.
    pub fn full() -> Self {
        Self {
            rounds: 31,
            round_ms: 20,
            quick: false,
            ..Self::quick()
        }
    }

    /// What the command line asks for. `cargo bench` passes `--bench`; without it this is a test run,
    /// which is quick.
    pub fn from_args() -> Self {
        Self::parse(std::env::args().skip(1))
    }

    /// What the command line asks for, and these words where it asks for nothing.
    pub fn from_args_or(defaults: &[&str]) -> Self {
        // The first of two equal options counts.
        let defaults = defaults.iter().map(|&word| word.to_owned());
        Self::parse(std::env::args().skip(1).chain(defaults))
    }

    fn parse(args: impl Iterator<Item = String>) -> Self {
        let args: Vec<String> = args.collect();
        let has = |flag: &str| args.iter().any(|arg| arg == flag);
        let value = |flag: &str| {
            let place = args.iter().position(|arg| arg == flag)?;
            args.get(place + 1)
        };
        let number = |flag| value(flag).and_then(|value| value.parse::<u64>().ok());
        let base = match has("--bench") && !has("--quick") {
            true => Self::full(),
            false => Self::quick(),
        };
        Self {
            rounds: number("--rounds")
                .and_then(|rounds| usize::try_from(rounds).ok())
                .map_or(base.rounds, |rounds| rounds.max(1)),
            round_ms: number("--round-ms").unwrap_or(base.round_ms),
            json: has("--json"),
            filter: value("--filter").cloned(),
            ..base
        }
    }

    /// Whether the run is too short to judge by.
    pub fn is_quick(&self) -> bool {
        self.quick
    }

    /// Whether a group with this title is to be run.
    pub fn selects(&self, title: &str) -> bool {
        self.filter.as_ref().is_none_or(|text| title.contains(text))
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    fn parse(line: &str) -> Settings {
        Settings::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_test_run_is_quick() {
        assert!(parse("").is_quick());
        assert!(parse("--bench --quick").is_quick());
        assert!(!parse("--bench").is_quick());
    }

    #[test]
    fn options_are_read() {
        let settings = parse("--bench --json --rounds 5 --round-ms 7 --filter pool");
        assert!(settings.json);
        assert_eq!((settings.rounds, settings.round_ms), (5, 7));
        assert!(settings.selects("a pool of blocks") && !settings.selects("a heap"));
        assert_eq!(parse("--bench --rounds 0").rounds, 1);
    }
}
