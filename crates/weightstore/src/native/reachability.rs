//! Which tensors are needed, and deleting those that are not.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use super::catalog::{References, unreadable_delta, unreadable_model};
use super::changes::Changes;
use super::core::{Core, Ledger};
use crate::record::{Key, Manifest, Place};
use crate::{WeightError, WeightHash};

/// Deletions in one batch.
const DELETES_MAX: usize = 50_000;

/// What a release deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Released {
    /// Of the tensors that it was to delete.
    pub(super) tensors: u64,
    /// Bases that only those needed.
    pub(super) bases: u64,
    /// Bytes of all their records.
    pub(super) freed_bytes: u64,
}

impl Core {
    /// Reads who needs which tensor, once; the caller holds the commit lock.
    pub(super) fn read_references(&self) -> Result<(), WeightError> {
        let (models, deltas) = {
            let catalog = self.catalog();
            if catalog.references().is_some() {
                return Ok(());
            }
            (catalog.models().clone(), catalog.deltas().clone())
        };
        let mut references = References::default();
        for name in models {
            match self.manifest(&name) {
                Ok(manifest) => {
                    references.add_model(&name, &manifest.roots().copied().collect());
                }
                Err(WeightError::Corrupt { .. } | WeightError::Newer { .. }) => {
                    references.unreadable.insert(unreadable_model(&name));
                }
                Err(error) => return Err(error),
            }
        }
        for id in deltas {
            match self.delta_record(&id) {
                Ok(Some(record)) => references.add_delta(record.reference_hash(), id),
                Ok(None) => {}
                Err(WeightError::Corrupt { .. } | WeightError::Newer { .. }) => {
                    references.unreadable.insert(unreadable_delta(&id));
                }
                Err(error) => return Err(error),
            }
        }
        self.catalog().set_references(references);
        Ok(())
    }

    /// Adds the deletion of a tensor's records.
    fn delete_object(&self, hash: &WeightHash, changes: &mut Changes) -> Result<(), WeightError> {
        let catalog = self.catalog();
        let Some(entry) = catalog.object(hash) else {
            return Ok(());
        };
        let mut keys = vec![Key::Object(*hash, entry.alias)];
        keys.extend(entry.hint.map(|hint| Key::Hint(hint, *hash)));
        keys.extend(entry.sketch.map(|place| Key::Sketch(place, *hash)));
        keys.extend(entry.base.map(|base| Key::BaseLink { base, hash: *hash }));
        keys.extend(entry.uses.iter().map(|&(number, digest)| Key::Label {
            hash: *hash,
            number,
            digest,
        }));
        drop(catalog);
        match self.object_now(hash) {
            Ok(Some(record)) => {
                if let Place::Chunks(body) = record.body.place {
                    changes.drop_body(body, record.body.chunks.len() as u32);
                }
            }
            // Which chunks a damaged header names is lost; they stay behind, unreachable.
            Ok(None) | Err(WeightError::Corrupt { .. }) => {}
            Err(error) => return Err(error),
        }
        changes.deletes.extend(keys.iter().map(Key::encode));
        Ok(())
    }

    /// Deletes those of the tensors that nothing needs any more, and the bases that only they needed;
    /// returns how many of the tensors, and how many bases besides.
    pub(super) fn release(&self, hashes: &BTreeSet<WeightHash>) -> Result<Released, WeightError> {
        let mut ledger = self.ledger();
        self.read_references()?;
        let doomed = self.doom_all(hashes);
        let outcome = self.delete_doomed(&mut ledger, doomed.iter().copied());
        if outcome.is_err() {
            let mut catalog = self.catalog();
            doomed.iter().for_each(|hash| catalog.spare(hash));
        }
        let tensors = doomed.iter().filter(|hash| hashes.contains(hash)).count() as u64;
        outcome.map(|freed_bytes| Released {
            tensors,
            bases: doomed.len() as u64 - tensors,
            freed_bytes,
        })
    }

    /// As [`release`](Self::release), once what it follows is durable: what can't be deleted now is unreachable and does no
    /// harm, and is left to a collection.
    pub(super) fn let_go(&self, hashes: &BTreeSet<WeightHash>) {
        if !hashes.is_empty() {
            drop(self.release(hashes));
        }
    }

    /// Marks what nothing needs as being deleted: what is stored against a base before the base.
    fn doom_all(&self, hashes: &BTreeSet<WeightHash>) -> Vec<WeightHash> {
        let mut catalog = self.catalog();
        let mut doomed = Vec::new();
        let mut candidates: Vec<WeightHash> = hashes.iter().copied().collect();
        while let Some(hash) = candidates.pop() {
            let base = catalog.object(&hash).and_then(|entry| entry.base);
            if catalog.doom(&hash) {
                doomed.push(hash);
                // With what is stored against it its own base may go.
                candidates.extend(base);
            }
        }
        doomed
    }

    /// Deletes tensors that nobody can begin to rely on; returns the bytes of their records.
    pub(super) fn delete_doomed(
        &self,
        ledger: &mut MutexGuard<'_, Ledger>,
        hashes: impl Iterator<Item = WeightHash>,
    ) -> Result<u64, WeightError> {
        let mut freed_bytes = 0;
        let mut changes = Changes::default();
        for hash in hashes {
            self.delete_object(&hash, &mut changes)?;
            if changes.deletes.len() >= DELETES_MAX {
                freed_bytes += self.commit_deletes(ledger, std::mem::take(&mut changes))?;
            }
        }
        Ok(freed_bytes + self.commit_deletes(ledger, changes)?)
    }

    /// Commits deletions; returns the bytes of what they delete.
    pub(super) fn commit_deletes(
        &self,
        ledger: &mut MutexGuard<'_, Ledger>,
        mut changes: Changes,
    ) -> Result<u64, WeightError> {
        if changes.is_empty() {
            return Ok(0);
        }
        let lens = changes.deletes.iter().map(|key| self.blobs.len_of(key));
        let freed_bytes = lens.flatten().sum();
        let mut chunks = Vec::new();
        if changes.deletes.len() > 2 * DELETES_MAX {
            // Of a very long tensor. Its header first: chunks that nothing names are unreachable, the reverse would be damage.
            let is_chunk = |key: &Vec<u8>| key.starts_with(Key::CHUNKS);
            chunks.extend(changes.deletes.extract_if(.., is_chunk));
        }
        if !changes.is_empty() {
            self.commit_locked(ledger, changes)?;
        }
        for group in chunks.chunks(DELETES_MAX) {
            let mut changes = Changes::default();
            changes.deletes.extend(group.iter().cloned());
            self.commit_locked(ledger, changes)?;
        }
        Ok(freed_bytes)
    }

    /// The manifest of a model.
    pub(super) fn manifest(&self, name: &str) -> Result<Manifest, WeightError> {
        let key = Key::Model(name.to_owned());
        let record = self.read(&key)?.ok_or_else(|| WeightError::ModelNotFound {
            name: name.to_owned(),
        })?;
        Manifest::parse(&record).map_err(|error| error.about("model", format!("{name:?}")))
    }
}
