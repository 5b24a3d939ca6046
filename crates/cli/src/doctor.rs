//! `stepwell doctor`: what this machine can do for the store.

mod machine;
mod sync_latency;
mod volume;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::error::CliError;
use crate::interruption::Scratch;
use crate::quantity::bytes;
use crate::report::Report;
use crate::table::{row, table};
use machine::Machine;

pub(crate) use volume::check_room;

/// What `doctor` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The directory whose file system is looked at.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// What `doctor` answers.
#[derive(Debug, Serialize)]
struct Diagnosis {
    dir: String,
    abilities: Vec<Ability>,
    free_bytes: u64,
    sync_median_us: Option<f64>,
    #[serde(flatten)]
    machine: Machine,
}

/// Something that a machine may be able to do.
#[derive(Debug, Serialize)]
struct Ability {
    ability: &'static str,
    available: bool,
    /// What was found, or why it is missing.
    finding: String,
    /// What it is good for.
    enables: &'static str,
}

pub(crate) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    let dir = &arguments.dir;
    let dir = dir
        .canonicalize()
        .map_err(|source| CliError::file("look at", dir, source))?;
    let (scratch, unwritable) = match volume::scratch_in(&dir) {
        Ok(scratch) => (Some(scratch), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let _watched = scratch
        .as_ref()
        .map(|scratch| Scratch::watch(scratch.path()));
    let place = scratch
        .as_ref()
        .map_or(dir.as_path(), |scratch| scratch.path());
    let mut abilities = volume::abilities(place)?;
    abilities.push(Ability {
        ability: "writing",
        available: scratch.is_some(),
        finding: unwritable.unwrap_or_else(|| "files can be made and written".to_owned()),
        enables: "stores in this directory",
    });
    abilities.push(machine::huge_pages());
    abilities.push(machine::gpu_driver());
    abilities.push(Ability {
        ability: "NIXL",
        available: false,
        finding: "this version is built without it".to_owned(),
        enables: "memory of other machines as a tier",
    });
    let diagnosis = Diagnosis {
        abilities,
        free_bytes: volume::free_bytes(&dir)?,
        sync_median_us: scratch
            .as_ref()
            .map(|scratch| sync_latency::median_us(scratch.path()))
            .transpose()?,
        machine: Machine::look()?,
        dir: dir.display().to_string(),
    };
    report.answer(&diagnosis, || diagnosis.text())
}

impl Diagnosis {
    fn text(&self) -> String {
        let mut rows = vec![row(["ability", "", "finding", "what it enables"])];
        rows.extend(self.abilities.iter().map(|ability| {
            let state = if ability.available {
                "available"
            } else {
                "missing"
            };
            row([ability.ability, state, &ability.finding, ability.enables])
        }));
        let sync = self
            .sync_median_us
            .map_or_else(|| "not measured".to_owned(), |us| format!("{us:.0} us"));
        let facts = [
            row(["directory", &self.dir]),
            row(["free space", &bytes(self.free_bytes)]),
            row(["sync of 4 KiB, median of 20", &sync]),
            row(["cores", &self.machine.cores.to_string()]),
            row(["memory", &bytes(self.machine.memory_bytes)]),
            row([
                "memory available",
                &bytes(self.machine.memory_available_bytes),
            ]),
            row(["kernel", &self.machine.kernel]),
        ];
        format!("{}\n{}", table(&rows, &[]), table(&facts, &[]))
    }
}
