//! `stepwell store verify`.

use clap::Args;
use serde::Serialize;
use tier_nvme::{Damage, NvmeError, NvmeStore, VerifyOptions, VerifyReport};
use weightstore::Progress;

use super::key::{KeyObject, shown};
use super::location::Location;
use crate::error::CliError;
use crate::quantity::{bytes, parse_bytes};
use crate::report::Report;

/// Bytes of values after which the bar moves.
const PART_BYTES: u64 = 64 << 20;

/// What `store verify` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
    /// Read only what is around the values: superblock, checkpoints, headers.
    #[arg(long)]
    structures: bool,
    /// Bytes of values to read in a second at most.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "structures")]
    rate: Option<u64>,
}

/// What `store verify` answers.
#[derive(Debug, Serialize)]
struct Verified {
    values: u64,
    value_bytes: u64,
    structures: u64,
    damage: Vec<DamagedItem>,
}

/// Something that is not as it was written.
#[derive(Debug, Serialize)]
pub(super) struct DamagedItem {
    structure: &'static str,
    location: String,
    /// Null where it is no value, or the key is no text.
    key: Option<String>,
    key_hex: Option<String>,
    reason: String,
    #[serde(skip)]
    shown: Option<String>,
}

pub(super) fn run(report: &Report, arguments: &Arguments) -> Result<(), CliError> {
    if arguments.rate == Some(0) {
        let reason = "--rate 0 would never end".to_owned();
        return Err(CliError::Usage { reason });
    }
    let verified = match arguments.location.open_for_reading() {
        Ok(store) => {
            let found = read_all(report, &store, arguments)?;
            // Damage that opening met and could do without is damage all the same.
            let met = store.recovery_report().damage.iter();
            let met = met.filter(|met| !found.damage.contains(met)).cloned();
            let damage: Vec<Damage> = met.chain(found.damage.iter().cloned()).collect();
            Verified {
                values: found.values_checked,
                value_bytes: found.bytes_checked,
                structures: found.structures_checked,
                damage: damage.into_iter().map(DamagedItem::new).collect(),
            }
        }
        // Damage so deep that the store can't be opened is what verify is asked for.
        Err(CliError::Storage(NvmeError::Corrupt {
            structure,
            location,
            reason,
        })) => Verified {
            values: 0,
            value_bytes: 0,
            structures: 1,
            damage: vec![DamagedItem {
                structure,
                location,
                key: None,
                key_hex: None,
                reason,
                shown: None,
            }],
        },
        Err(error) => return Err(error),
    };
    report.answer(&verified, || verified.text())?;
    match verified.damage.len() {
        0 => Ok(()),
        count => Err(CliError::Damaged {
            count,
            checked: verified.values + verified.structures,
            remedy: "put what is named again from a copy",
        }),
    }
}

/// Reads all of it, in parts, so that the bar moves.
fn read_all(
    report: &Report,
    store: &NvmeStore,
    arguments: &Arguments,
) -> Result<VerifyReport, CliError> {
    let progress = report.progress("verify");
    let total_bytes = store.stats().live_bytes;
    let mut options = VerifyOptions::default()
        .with_values(!arguments.structures)
        .with_bytes_max(Some(PART_BYTES))
        .with_bytes_per_second_max(arguments.rate);
    let mut whole = VerifyReport::default();
    loop {
        let part = store.verify_with(&options)?;
        whole.values_checked += part.values_checked;
        whole.bytes_checked += part.bytes_checked;
        whole.structures_checked += part.structures_checked;
        whole.damage.extend(part.damage);
        progress.set(Progress {
            done_bytes: whole.bytes_checked,
            total_bytes,
        });
        match part.stopped_at {
            Some(position) => options = options.with_start(position),
            None => return Ok(whole),
        }
    }
}

impl DamagedItem {
    pub(super) fn new(damage: Damage) -> Self {
        let KeyObject { key, key_hex } = match &damage.key {
            Some(key) => KeyObject::new(key),
            None => KeyObject::default(),
        };
        Self {
            structure: damage.structure,
            location: damage.location,
            shown: damage.key.as_deref().map(shown),
            key,
            key_hex,
            reason: damage.reason,
        }
    }

    /// A line for people.
    pub(super) fn text(&self) -> String {
        let key = self.shown.as_ref();
        let key = key.map_or_else(String::new, |key| format!(" of {key}"));
        format!(
            "{}{key} in {}: {}\n",
            self.structure, self.location, self.reason
        )
    }
}

impl Verified {
    fn text(&self) -> String {
        let mut text = format!(
            "checked {} values ({}) and {} structures: {} damaged\n",
            self.values,
            bytes(self.value_bytes),
            self.structures,
            self.damage.len()
        );
        self.damage
            .iter()
            .for_each(|item| text.push_str(&item.text()));
        text
    }
}
