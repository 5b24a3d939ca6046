//! The command line.

use lexopt::{Arg, Parser, ValueExt};

use crate::ci::Selection;
use crate::error::Error;
use crate::full_counts;

/// What `help` prints.
pub(crate) const HELP: &str = "\
usage: cargo xtask TASK [OPTIONS]

  ci [--only ROW,..] [--skip ROW,..] [--list] [--verbose]
                         every check, and one table at the end
  layers                 dependencies point downward, heavy ones stay with their owners
  tidy                   the house rules that no compiler checks
  hw                     the test suites in each configuration that this machine has
  replay                 that matrix's block-level crash replay alone
  coral                  that matrix's exchange of files with Coral alone
  torch                  that matrix's imports of what PyTorch writes alone; installs it if there is none
  sim [--seeds N]        the crash simulations of blob store, slab and log (1000 seeds)
  sim --seed N           one seed of them again
  kill [--count N]       kills of processes that store blocks and models (200)
  soak [--minutes N]     a trace through the tiers of a KV cache again and again, and how memory grows (30)
  mutants [--seeds N] [--only PREFIX]
                         removes one safeguard at a time and demands a red suite
  coverage               line coverage, where the tool is installed
  bench [NAME] [-- ..]   our benches
  peers [-- ..]          ours beside the peers
  help                   this text

The full output of each row is kept in target/xtask/ROW.log.";

/// What to do.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    Help,
    ListRows,
    Ci {
        selection: Selection,
        verbose: bool,
    },
    Layers,
    Tidy,
    Coverage,
    Mutants {
        seeds: u64,
        /// What the names of those that are removed begin with.
        prefix: String,
    },
    Hardware,
    Replay,
    Coral,
    Torch,
    Simulation {
        seeds: u64,
    },
    SimulationOf {
        seed: u64,
    },
    Kill {
        count: u64,
    },
    Soak {
        minutes: u64,
    },
    Bench {
        name: Option<String>,
        rest: Vec<String>,
    },
    Peers {
        rest: Vec<String>,
    },
}

/// Reads the command line.
pub(crate) fn parse(mut parser: Parser) -> Result<Task, Error> {
    let task = match parser.next().map_err(refused)? {
        None => return Ok(Task::Help),
        Some(Arg::Value(task)) => task.string().map_err(refused)?,
        Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Task::Help),
        Some(other) => return Err(refused(other.unexpected())),
    };
    match task.as_str() {
        "help" => alone(parser, Task::Help),
        "ci" => parse_ci(parser),
        "layers" => alone(parser, Task::Layers),
        "tidy" => alone(parser, Task::Tidy),
        "coverage" => alone(parser, Task::Coverage),
        "hw" => alone(parser, Task::Hardware),
        "replay" => alone(parser, Task::Replay),
        "coral" => alone(parser, Task::Coral),
        "torch" => alone(parser, Task::Torch),
        "mutants" => parse_mutants(parser),
        "sim" => parse_simulation(parser),
        "kill" => parse_count(parser, "count", full_counts::KILL.count_default)
            .map(|count| Task::Kill { count }),
        "soak" => parse_count(parser, "minutes", full_counts::SOAK_MINUTES_DEFAULT)
            .map(|minutes| Task::Soak { minutes }),
        "bench" => {
            let (name, rest) = parse_rest(parser, true)?;
            Ok(Task::Bench { name, rest })
        }
        "peers" => {
            let (_, rest) = parse_rest(parser, false)?;
            Ok(Task::Peers { rest })
        }
        other => Err(Error::usage(format!("there is no task `{other}`"))),
    }
}

fn parse_ci(mut parser: Parser) -> Result<Task, Error> {
    let mut selection = Selection::default();
    let mut verbose = false;
    while let Some(argument) = parser.next().map_err(refused)? {
        match argument {
            Arg::Long("list") => return Ok(Task::ListRows),
            Arg::Long("only") => selection.only.extend(names(&mut parser)?),
            Arg::Long("skip") => selection.skip.extend(names(&mut parser)?),
            Arg::Short('v') | Arg::Long("verbose") => verbose = true,
            other => return Err(refused(other.unexpected())),
        }
    }
    Ok(Task::Ci { selection, verbose })
}

fn names(parser: &mut Parser) -> Result<Vec<String>, Error> {
    let value = parser.value().map_err(refused)?.string().map_err(refused)?;
    Ok(value
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect())
}

fn parse_count(mut parser: Parser, option: &str, default: u64) -> Result<u64, Error> {
    let mut count = default;
    while let Some(argument) = parser.next().map_err(refused)? {
        match argument {
            Arg::Long(name) if name == option => {
                count = parser.value().map_err(refused)?.parse().map_err(refused)?;
            }
            other => return Err(refused(other.unexpected())),
        }
    }
    if count == 0 {
        return Err(Error::usage(format!("--{option} must be at least 1")));
    }
    Ok(count)
}

fn parse_simulation(mut parser: Parser) -> Result<Task, Error> {
    let mut task = Task::Simulation {
        seeds: full_counts::SIMULATION.count_default,
    };
    loop {
        let option = match parser.next().map_err(refused)? {
            None => break,
            Some(Arg::Long(option)) => option.to_owned(),
            Some(other) => return Err(refused(other.unexpected())),
        };
        let number = parser.value().map_err(refused)?.parse().map_err(refused)?;
        task = match option.as_str() {
            "seed" => Task::SimulationOf { seed: number },
            "seeds" => Task::Simulation { seeds: number },
            other => return Err(Error::usage(format!("there is no option --{other}"))),
        };
    }
    match task {
        Task::Simulation { seeds: 0 } => Err(Error::usage("--seeds must be at least 1")),
        task => Ok(task),
    }
}

fn parse_mutants(mut parser: Parser) -> Result<Task, Error> {
    let (mut seeds, mut prefix) = (crate::mutants::SEEDS_DEFAULT, String::new());
    while let Some(argument) = parser.next().map_err(refused)? {
        match argument {
            Arg::Long("seeds") => {
                seeds = parser.value().map_err(refused)?.parse().map_err(refused)?;
            }
            Arg::Long("only") => {
                prefix = parser.value().map_err(refused)?.string().map_err(refused)?;
            }
            other => return Err(refused(other.unexpected())),
        }
    }
    match seeds {
        0 => Err(Error::usage("--seeds must be at least 1")),
        seeds => Ok(Task::Mutants { seeds, prefix }),
    }
}

fn parse_rest(mut parser: Parser, named: bool) -> Result<(Option<String>, Vec<String>), Error> {
    let mut words: Vec<String> = Vec::new();
    for word in parser.raw_args().map_err(refused)? {
        words.push(word.string().map_err(refused)?);
    }
    let dashes = words
        .iter()
        .position(|word| word == "--")
        .unwrap_or(words.len());
    let rest = words.iter().skip(dashes + 1).cloned().collect();
    words.truncate(dashes);
    let name_max = usize::from(named);
    if let Some(surplus) = words.get(name_max) {
        let hint = "arguments of a bench go behind `--`";
        return Err(Error::usage(format!(
            "unexpected argument `{surplus}` ({hint})"
        )));
    }
    Ok((words.pop(), rest))
}

fn alone(mut parser: Parser, task: Task) -> Result<Task, Error> {
    match parser.next().map_err(refused)? {
        None => Ok(task),
        Some(other) => Err(refused(other.unexpected())),
    }
}

fn refused(error: lexopt::Error) -> Error {
    Error::usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Task, Error> {
        parse(Parser::from_args(words))
    }

    #[test]
    fn rows_are_selected_by_name() {
        let Ok(Task::Ci { selection, verbose }) =
            parsed(&["ci", "--only", "fmt,tidy", "--skip=fmt", "-v"])
        else {
            panic!("not a ci task");
        };
        assert_eq!(selection.only, ["fmt", "tidy"]);
        assert_eq!(selection.skip, ["fmt"]);
        assert!(verbose);
    }

    #[test]
    fn counts_have_defaults_and_bounds() {
        assert!(matches!(
            parsed(&["sim"]),
            Ok(Task::Simulation { seeds: 1000 })
        ));
        assert!(matches!(
            parsed(&["sim", "--seeds", "7"]),
            Ok(Task::Simulation { seeds: 7 })
        ));
        assert!(matches!(
            parsed(&["sim", "--seed", "0"]),
            Ok(Task::SimulationOf { seed: 0 })
        ));
        assert!(matches!(
            parsed(&["kill", "--count=5"]),
            Ok(Task::Kill { count: 5 })
        ));
        assert!(matches!(
            parsed(&["soak", "--minutes", "2"]),
            Ok(Task::Soak { minutes: 2 })
        ));
        for wrong in [
            &["sim", "--seeds", "0"][..],
            &["soak", "--minutes", "0"],
            &["sim", "--seeds", "x"],
            &["kill", "--seeds=1"],
        ] {
            assert!(
                matches!(parsed(wrong), Err(Error::Usage { .. })),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn safeguards_are_chosen_by_how_their_names_begin() {
        assert!(matches!(
            parsed(&["mutants", "--only", "wal-", "--seeds=5"]),
            Ok(Task::Mutants { seeds: 5, prefix }) if prefix == "wal-"
        ));
        assert!(matches!(
            parsed(&["mutants"]),
            Ok(Task::Mutants { seeds: 300, prefix }) if prefix.is_empty()
        ));
        assert!(matches!(
            parsed(&["mutants", "--seeds", "0"]),
            Err(Error::Usage { .. })
        ));
    }

    #[test]
    fn a_bench_takes_a_name_and_arguments_of_its_own() {
        let Ok(Task::Bench { name, rest }) = parsed(&["bench", "alloc", "--", "--json"]) else {
            panic!("not a bench task");
        };
        assert_eq!(name.as_deref(), Some("alloc"));
        assert_eq!(rest, ["--json"]);
        assert!(parsed(&["bench", "alloc", "view"]).is_err());
        assert!(parsed(&["peers", "alloc"]).is_err());
    }

    #[test]
    fn unknown_tasks_and_options_are_refused() {
        for wrong in [&["lint"][..], &["tidy", "--fix"], &["ci", "--all"]] {
            assert!(
                matches!(parsed(wrong), Err(Error::Usage { .. })),
                "{wrong:?}"
            );
        }
        assert!(matches!(parsed(&[]), Ok(Task::Help)));
    }
}
