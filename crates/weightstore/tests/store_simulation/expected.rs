//! What should be in the store.

use std::collections::{BTreeMap, BTreeSet};

use tier_nvme::sim::Random;
use weightstore::{
    ExportOptions, HashKey, NativeStore, WeightError, WeightHash, WeightMetadata, WeightStore,
};

use crate::counts::Counts;

/// What can be asked of the store by name: a model's file, a single weight's bytes, a delta's payload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Model(String),
    Weight(WeightHash),
    Delta(WeightHash),
}

#[derive(Default)]
pub(crate) struct Expected {
    pub(crate) content: BTreeMap<Name, Vec<u8>>,
    /// A change that was not acknowledged: before or after, both are right.
    unsure: Option<(Name, Option<Vec<u8>>)>,
}

impl Expected {
    /// A change is about to be asked for.
    pub(crate) fn begin(&mut self, name: Name, after: Option<Vec<u8>>) {
        self.unsure = Some((name, after));
    }

    /// The change was acknowledged.
    pub(crate) fn done(&mut self) {
        if let Some((name, after)) = self.unsure.take() {
            self.set(name, after);
        }
    }

    /// The change was refused, and nothing happened.
    pub(crate) fn refused(&mut self) {
        self.unsure = None;
    }

    fn set(&mut self, name: Name, content: Option<Vec<u8>>) {
        match content {
            Some(content) => self.content.insert(name, content),
            None => self.content.remove(&name),
        };
    }

    pub(crate) fn models(&self) -> Vec<&str> {
        let names = self.content.keys();
        names
            .filter_map(|name| match name {
                Name::Model(name) => Some(name.as_str()),
                Name::Weight(_) | Name::Delta(_) => None,
            })
            .collect()
    }

    pub(crate) fn deltas(&self) -> Vec<WeightHash> {
        let names = self.content.keys();
        names
            .filter_map(|name| match name {
                Name::Delta(id) => Some(*id),
                Name::Model(_) | Name::Weight(_) => None,
            })
            .collect()
    }

    /// One of what is there.
    pub(crate) fn any(&self, random: &mut Random) -> Option<(&Name, &Vec<u8>)> {
        let at = random.below(self.content.len().max(1) as u64);
        self.content.iter().nth(at as usize)
    }

    /// After a loss: what was not acknowledged is whole or absent, from then on it is the one or the other.
    pub(crate) fn settle(&mut self, store: &NativeStore, counts: &mut Counts) {
        let Some((name, after)) = self.unsure.take() else {
            return;
        };
        let found = find(store, &name).unwrap();
        let before = self.content.get(&name).cloned();
        if before != after {
            counts.unsure_kept += u64::from(found == after);
            counts.unsure_lost += u64::from(found == before);
        }
        assert!(
            found == before || found == after,
            "{name:?} is neither old nor new"
        );
        self.set(name, found);
    }

    /// Everything is there, and nothing else is.
    pub(crate) fn check(&self, store: &NativeStore) {
        assert_eq!(store.models().unwrap(), self.models());
        assert_eq!(store.list_deltas().unwrap(), self.deltas());
        let weights = self.content.keys().filter_map(|name| match name {
            Name::Weight(hash) => Some(*hash),
            Name::Model(_) | Name::Delta(_) => None,
        });
        let named: BTreeSet<WeightHash> = store
            .list_weights()
            .unwrap()
            .into_iter()
            .filter(|hash| has_use(store, &HashKey::from(hash)).unwrap())
            .collect();
        assert_eq!(named, weights.collect());
        for (name, content) in &self.content {
            let found = find(store, name).unwrap();
            assert!(
                found.as_ref() == Some(content),
                "{name:?} is not what it was"
            );
        }
    }
}

/// What is under a name.
pub(crate) fn find(store: &NativeStore, name: &Name) -> Result<Option<Vec<u8>>, WeightError> {
    match name {
        Name::Model(name) => {
            let mut file = Vec::new();
            match store.export_model(name, &mut file, &ExportOptions::default()) {
                Ok(_) => Ok(Some(file)),
                Err(WeightError::ModelNotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        }
        Name::Weight(hash) => {
            let key = HashKey::from(hash);
            if !has_use(store, &key)? {
                return Ok(None);
            }
            Ok(store.load(&key)?.map(|weight| weight.bytes().to_vec()))
        }
        Name::Delta(id) => {
            let delta = store.load_delta(id)?;
            Ok(delta.map(|delta| delta.payload().to_vec()))
        }
    }
}

/// Whether a tensor was stored as a single weight: one of a model is there as well without.
fn has_use(store: &NativeStore, key: &HashKey) -> Result<bool, WeightError> {
    let uses = store.uses(key)?;
    let single = |label: &WeightMetadata| label.name == "lone" && label.model_name.is_none();
    Ok(uses.iter().any(single))
}
