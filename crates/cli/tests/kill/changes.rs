//! Changes of a store of values, each made out of its number.

use std::collections::BTreeMap;

use crate::models::Random;

/// Changes in each batch.
pub(crate) const BATCH_CHANGES: u64 = 16;

/// Keys there are: so few that most changes overwrite or remove something.
const KEYS: u64 = 160;

/// Bytes of a value at most, for most values and for some.
const LEN_MAX: u64 = 6000;
const LONG_LEN_MAX: u64 = 90_000;

/// What is under each key: the number of the change that put it there.
pub(crate) type Model = BTreeMap<Vec<u8>, u64>;

/// A change: the key, and what is put under it unless it is removed.
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) value: Option<String>,
}

/// The change with this number.
pub(crate) fn change(number: u64) -> Change {
    let mut random = Random::new(number);
    let key = format!("value/{:03}", random.below(KEYS));
    if random.below(6) == 0 {
        return Change { key, value: None };
    }
    let len_max = match random.below(10) {
        0 => LONG_LEN_MAX,
        _ => LEN_MAX,
    };
    let len = random.below(len_max) as usize;
    let mut value = format!("{number:016x}");
    while value.len() < len {
        value += &format!("{:016x}", random.next());
    }
    Change {
        key,
        value: Some(value),
    }
}

impl Change {
    /// The line that makes `store put --jsonl` do it.
    pub(crate) fn line(&self) -> String {
        let Self { key, value } = self;
        match value {
            Some(value) => format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}\n"),
            None => format!("{{\"key\":\"{key}\",\"delete\":true}}\n"),
        }
    }
}

/// Does a batch of changes that begins with this one.
pub(crate) fn apply_batch(model: &mut Model, first: u64) {
    for number in first..first + BATCH_CHANGES {
        let change = change(number);
        match change.value {
            Some(_) => model.insert(change.key.into_bytes(), number),
            None => model.remove(change.key.as_bytes()),
        };
    }
}
