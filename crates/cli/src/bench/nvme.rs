//! `stepwell bench nvme`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use tier_nvme::FileMode;
use tier_nvme::bench::{
    Action, BenchError, Contender, RawLoop, SlabContender, StoreContender, Work, fill_until_killed,
    reopen,
};

use super::outcome::{Opened, Outcome, WorkOutcome};
use super::picture;
use super::race::{Lane, race};
use crate::doctor::check_room;
use crate::error::CliError;
use crate::interruption::ScratchDirectory;
use crate::report::Report;
use crate::target::Target;

/// How much smaller the work is with `--quick`.
const QUICK_DIVISOR: usize = 16;

/// What `bench nvme` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the measurement works, in a directory of its own that it removes.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Write the result as a page with a picture.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Replace the report that is there.
    #[arg(long, requires = "report")]
    force: bool,
    /// Rounds in which floor and store take turns.
    #[arg(long, value_name = "N", default_value = "9", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Keys of the store that is reopened.
    #[arg(long, value_name = "N", default_value = "2000000", value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Do a fraction of the work, to see that it works; no figure to rely on.
    #[arg(long)]
    quick: bool,
    /// Be the process that is killed, in this directory.
    #[arg(long, value_name = "DIR", hide = true)]
    fill_until_killed: Option<PathBuf>,
}

pub(crate) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    if let Some(path) = &arguments.fill_until_killed {
        return fill_until_killed(path, arguments.keys).map_err(failed("filling a store"));
    }
    let dir = &arguments.dir;
    let dir = dir
        .canonicalize()
        .map_err(|source| CliError::file("look at", dir, source))?;
    // The name is refused before minutes are spent on what is to be in it.
    let page = arguments.report.as_deref();
    let page = page
        .map(|path| Target::open(path, arguments.force))
        .transpose()?;
    let works: Vec<Work> = match arguments.quick {
        true => Work::ALL.map(|work| work.reduced(QUICK_DIVISOR)).to_vec(),
        false => Work::ALL.to_vec(),
    };
    check_room(
        &dir,
        needed_bytes(&works),
        "the measurement",
        " or pass --quick",
    )?;
    let scratch = ScratchDirectory::announce(report, &dir, ".stepwell-bench-")?;
    let outcome = Measurement {
        report,
        arguments,
        folder: scratch.path(),
    }
    .take(&works);
    let removed = scratch.remove();
    let outcome = outcome?.without_verdicts_if_quick();
    report.answer(&outcome, || outcome.text())?;
    if let (Some(mut page), Some(path)) = (page, &arguments.report) {
        page.write_all(picture::page(&outcome)?.as_bytes())
            .map_err(|source| CliError::file("write", path, source))?;
        page.publish()?;
    }
    removed
}

fn failed(what: impl Into<String>) -> impl FnOnce(BenchError) -> CliError {
    let what = what.into();
    move |source| CliError::Bench { what, source }
}

/// Three files or stores, each of some turns of puts or of all values to be got, and a slab for each size.
fn needed_bytes(works: &[Work]) -> u64 {
    let largest = works
        .iter()
        .map(|work| work.stored_bytes().max(work.turn_bytes() * 10));
    3 * largest.max().unwrap_or(0) + (4 << 30)
}

/// A measurement under way.
struct Measurement<'a> {
    report: &'a Report,
    arguments: &'a Arguments,
    folder: &'a Path,
}

impl Measurement<'_> {
    fn take(&self, works: &[Work]) -> Result<Outcome, CliError> {
        let setting_up = || failed("a store of its own");
        let mut fresh = RawLoop::fresh(self.folder).map_err(setting_up())?;
        let mut overwriting = RawLoop::overwriting(self.folder).map_err(setting_up())?;
        let mut store = StoreContender::create(&self.folder.join("store")).map_err(setting_up())?;
        let mut slab = SlabContender::new(&self.folder.join("slab"));
        let mut outcomes = Vec::with_capacity(works.len());
        let mut floor_mode = "";
        for work in works {
            self.report.note(&format!("measuring: {}", work.title));
            // Where nothing is put, one raw loop is as good as the other.
            let floors: Vec<&mut dyn Contender> = match work.action {
                Action::Put => vec![&mut fresh, &mut overwriting],
                Action::Get => vec![&mut overwriting],
            };
            let floors_count = floors.len();
            let mut lanes: Vec<Lane<'_>> = floors.into_iter().map(Lane::new).collect();
            lanes.push(Lane::new(&mut store));
            lanes.push(Lane::new(&mut slab));
            race(&mut lanes, work, self.arguments.rounds).map_err(failed(work.title))?;
            let (floors, ours) = lanes.split_at(floors_count);
            if let [store, slab] = ours {
                outcomes.extend(WorkOutcome::new(work, floors, store, slab));
            }
            floor_mode = overwriting.mode().unwrap_or(floor_mode);
        }
        let volume = store.stats().volume;
        drop((store, slab));
        let (after_kill, after_close) = self.reopen()?;
        Ok(Outcome {
            dir: self
                .folder
                .parent()
                .unwrap_or(self.folder)
                .display()
                .to_string(),
            rounds: self.arguments.rounds,
            quick: self.arguments.quick,
            floor_mode,
            store_engine: volume.engine,
            store_mode: match volume.mode {
                FileMode::Direct => "direct",
                FileMode::Buffered { .. } => "buffered",
            },
            works: outcomes,
            reopen_after_kill: after_kill,
            reopen_after_close: after_close,
        })
    }

    fn reopen(&self) -> Result<(Opened, Opened), CliError> {
        let keys = match self.arguments.quick {
            true => self.arguments.keys.min(20_000),
            false => self.arguments.keys,
        };
        self.report
            .note(&format!("measuring: reopening a store of {keys} keys"));
        let path = self.folder.join("killed");
        let program = std::env::current_exe()
            .map_err(|source| CliError::file("find", "this program", source))?;
        let mut child = Command::new(program);
        child
            .args(["bench", "nvme", "--keys", &keys.to_string()])
            .arg("--fill-until-killed")
            .arg(&path);
        let (killed, closed) = reopen(child, &path, keys).map_err(failed("reopening a store"))?;
        Ok((Opened::new(&killed), Opened::new(&closed)))
    }
}
