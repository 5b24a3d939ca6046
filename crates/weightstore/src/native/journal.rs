//! What transfers have to remember.

use super::NativeStore;
use super::changes::Changes;
use super::import::check_name;
use crate::WeightError;
use crate::encoded::{TRANSFER_STATE_LEN_MAX, TransferJournal};
use crate::record::{BodyId, JournalRecord, Key};

impl TransferJournal for NativeStore {
    fn record(&self, transfer: &str, state: &[u8]) -> Result<(), WeightError> {
        check_name("transfer", transfer)?;
        if state.len() > TRANSFER_STATE_LEN_MAX {
            return Err(WeightError::TooLarge {
                what: format!("the state of transfer {transfer:?}"),
                found_bytes: state.len() as u64,
                limit_bytes: TRANSFER_STATE_LEN_MAX as u64,
            });
        }
        let mut changes = Changes::default();
        let key = Key::Journal(transfer.to_owned());
        changes.add_record(key, JournalRecord::encode(state), BodyId::default());
        self.enter()?.commit(changes).map(drop)
    }

    fn recorded(&self, transfer: &str) -> Result<Option<Vec<u8>>, WeightError> {
        let Some(record) = self.enter()?.read(&Key::Journal(transfer.to_owned()))? else {
            return Ok(None);
        };
        let parsed = JournalRecord::parse(&record);
        parsed
            .map(Some)
            .map_err(|error| error.about("transfer", transfer))
    }

    fn forget(&self, transfer: &str) -> Result<bool, WeightError> {
        let core = self.enter()?;
        let key = Key::Journal(transfer.to_owned()).encode();
        let known = core.blobs.len_of(&key).is_some();
        if known {
            let mut changes = Changes::default();
            changes.deletes.insert(key);
            core.commit(changes)?;
        }
        Ok(known)
    }

    fn transfers(&self) -> Result<Vec<String>, WeightError> {
        let keys = self
            .enter()?
            .blobs
            .keys_with_prefix(Key::JOURNAL)
            .into_iter();
        let names = keys.filter_map(|key| match Key::parse(&key) {
            Some(Key::Journal(name)) => Some(name),
            _ => None,
        });
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        Ok(names)
    }
}
