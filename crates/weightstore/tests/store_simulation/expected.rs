//! What should be in the store.

use std::collections::{BTreeMap, BTreeSet};

use weightstore::{ExportOptions, HashKey, NativeStore, WeightError, WeightHash, WeightStore};

use crate::counts::Counts;

/// What can be asked of the store by name: a model's file or a single weight's bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Model(String),
    Weight(WeightHash),
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
                Name::Weight(_) => None,
            })
            .collect()
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
        let weights = self.content.keys().filter_map(|name| match name {
            Name::Weight(hash) => Some(*hash),
            Name::Model(_) => None,
        });
        let named: BTreeSet<WeightHash> = store
            .list_weights()
            .unwrap()
            .into_iter()
            .filter(|hash| has_use(store, &HashKey::from(hash)))
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
fn find(store: &NativeStore, name: &Name) -> Result<Option<Vec<u8>>, WeightError> {
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
            if !has_use(store, &key) {
                return Ok(None);
            }
            Ok(store.load(&key)?.map(|weight| weight.bytes().to_vec()))
        }
    }
}

/// Whether a tensor was stored as a single weight: one of a model is there as well without.
fn has_use(store: &NativeStore, key: &HashKey) -> bool {
    let uses = store.uses(key).unwrap();
    uses.iter()
        .any(|label| label.name == "lone" && label.model_name.is_none())
}
