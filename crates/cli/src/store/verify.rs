//! `stepwell store verify`.

use clap::Args;
use serde::Serialize;
use tier_nvme::{Damage, NvmeError};

use super::key::{KeyObject, shown};
use super::location::Location;
use crate::error::CliError;
use crate::quantity::bytes;
use crate::report::Report;

/// What `store verify` takes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    location: Location,
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
    let verified = match arguments.location.open_for_reading() {
        Ok(store) => {
            let found = store.verify()?;
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
        }),
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
