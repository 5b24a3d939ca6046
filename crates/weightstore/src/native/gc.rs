//! Deleting what nothing needs any more.

use std::collections::{BTreeSet, HashSet};

use super::changes::Changes;
use super::core::Core;
use super::verify::{body_of, reason_of};
use super::{Entered, NativeStore};
use crate::record::{BodyId, Key};
use crate::{WeightError, WeightHash, parallel};

/// Headers that a step reads.
const HEADERS_PER_STEP: usize = 1024;
/// Tensors that a step deletes.
const TENSORS_PER_STEP: usize = 256;
/// Bases that a step does away with.
const BASES_PER_STEP: usize = 64;
/// Other records that a step deletes.
const RECORDS_PER_STEP: usize = 4096;

/// How garbage is collected.
#[derive(Debug, Clone, Default)]
pub struct GcOptions {
    rebase: bool,
    dry_run: bool,
}

impl GcOptions {
    /// Whether tensors that are stored against a base that nothing else needs are stored otherwise, so that
    /// the base can go. It takes time, and saves space if the base has few of them.
    #[must_use]
    pub fn with_rebase(mut self, rebase: bool) -> Self {
        self.rebase = rebase;
        self
    }

    /// Whether to delete nothing and only say what would be.
    #[must_use]
    pub fn with_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// What was collected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GcReport {
    /// Tensors that no model, use, delta, other tensor or running operation needs.
    pub removed_tensors: u64,
    /// Chunks of content that was never finished.
    pub removed_chunks: u64,
    /// Hints, sketches and links of tensors that are not there.
    pub removed_records: u64,
    /// Bytes of all those.
    pub reclaimed_bytes: u64,
    /// Tensors that were stored otherwise so that their base could go.
    pub rebased_tensors: u64,
    /// Tensors that are kept only because others are stored against them.
    pub kept_bases: u64,
    /// What can't be read, and why: what it may need was kept.
    pub unreadable: Vec<String>,
}

/// A collection under way, step by step.
///
/// Between steps, and during them, the store can be used; what is being imported is not touched. A collection
/// that is dropped, or cut off by a crash, has deleted some of the garbage.
///
/// ```
/// use weightstore::{GcOptions, NativeConfig, NativeStore};
///
/// let directory = tempfile::tempdir()?;
/// let store = NativeStore::open(directory.path(), NativeConfig::default())?;
/// let mut gc = store.begin_gc(GcOptions::default());
/// while !gc.step()? {}
/// assert_eq!(gc.report().removed_tensors, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Gc<'a> {
    store: &'a NativeStore,
    options: GcOptions,
    phase: Phase,
    report: GcReport,
    /// Below this, chunks belong to no running operation.
    fence: BodyId,
    /// The bodies that headers name.
    named: HashSet<BodyId>,
}

/// What the next step goes on with; what is listed is still to be done.
#[derive(Debug)]
enum Phase {
    Start,
    Headers(Vec<WeightHash>),
    Deltas(Vec<WeightHash>),
    Tensors(Vec<WeightHash>),
    Bases(Vec<WeightHash>),
    Chunks(Vec<Vec<u8>>),
    Records(Vec<Vec<u8>>),
    Done,
}

impl NativeStore {
    /// Deletes what nothing needs: tensors that no model and no use reaches, and what crashes left.
    ///
    /// # Errors
    /// [`WeightError::Storage`]; what was deleted until then stays deleted.
    pub fn gc(&self, options: GcOptions) -> Result<GcReport, WeightError> {
        let mut gc = self.begin_gc(options);
        while !gc.step()? {}
        Ok(gc.report)
    }

    /// Begins a collection whose steps the caller takes.
    pub fn begin_gc(&self, options: GcOptions) -> Gc<'_> {
        Gc {
            store: self,
            options,
            phase: Phase::Start,
            report: GcReport::default(),
            fence: BodyId::default(),
            named: HashSet::new(),
        }
    }
}

impl Gc<'_> {
    /// What was collected so far.
    pub fn report(&self) -> &GcReport {
        &self.report
    }

    /// Reads or deletes a bounded number of records; true once nothing is left to do.
    ///
    /// # Errors
    /// [`WeightError::Closed`], [`WeightError::Storage`]; the next step begins a new round.
    pub fn step(&mut self) -> Result<bool, WeightError> {
        let core = self.store.enter()?;
        // An error leaves it there.
        match std::mem::replace(&mut self.phase, Phase::Start) {
            Phase::Start => self.start(&core)?,
            Phase::Headers(hashes) => self.read_headers(&core, hashes)?,
            Phase::Deltas(ids) => self.read_deltas(&core, ids)?,
            Phase::Tensors(hashes) => self.delete_tensors(&core, hashes)?,
            Phase::Bases(hashes) => self.rebase(&core, hashes)?,
            Phase::Chunks(keys) => self.delete_chunks(&core, keys)?,
            Phase::Records(keys) => self.delete_records(&core, keys)?,
            Phase::Done => self.phase = Phase::Done,
        }
        Ok(matches!(self.phase, Phase::Done))
    }

    fn start(&mut self, core: &Entered<'_>) -> Result<(), WeightError> {
        // Held: what is being committed is in the store or in the catalog, and not between them.
        let _ledger = core.ledger();
        core.read_references()?;
        self.named.clear();
        self.report.unreadable.clear();
        // Before any header is read: one that is committed later names a body from here on.
        self.fence = core.first_unfinished();
        for (hash, body) in core.staged() {
            match body {
                Some(body) => drop(self.named.insert(body)),
                None => self.report.unreadable.push(format!("staged tensor {hash}")),
            }
        }
        self.phase = Phase::Headers(core.catalog().hashes().copied().collect());
        Ok(())
    }

    /// Learns which bodies are named, and that every base is protected by its link.
    fn read_headers(
        &mut self,
        core: &Core,
        mut hashes: Vec<WeightHash>,
    ) -> Result<(), WeightError> {
        let rest = hashes.len().saturating_sub(HEADERS_PER_STEP);
        let group = hashes.split_off(rest);
        let read = parallel::map(core.fetch_threads(), group, |hash| {
            (hash, named_by(core, &hash))
        });
        self.phase = match hashes.is_empty() {
            true => Phase::Deltas(core.catalog().deltas().iter().copied().collect()),
            false => Phase::Headers(hashes),
        };
        for (hash, body) in read {
            match body {
                Ok(body) => self.named.extend(body),
                Err(error @ (WeightError::Corrupt { .. } | WeightError::Newer { .. })) => {
                    let reason = reason_of(&error);
                    self.report
                        .unreadable
                        .push(format!("tensor {hash}: {reason}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_deltas(&mut self, core: &Core, mut ids: Vec<WeightHash>) -> Result<(), WeightError> {
        let rest = ids.len().saturating_sub(HEADERS_PER_STEP);
        for id in ids.split_off(rest) {
            match core.delta_record(&id) {
                Ok(record) => self
                    .named
                    .extend(record.and_then(|record| body_of(&record.body))),
                Err(error @ (WeightError::Corrupt { .. } | WeightError::Newer { .. })) => {
                    let reason = reason_of(&error);
                    self.report.unreadable.push(format!("delta {id}: {reason}"));
                }
                Err(error) => return Err(error),
            }
        }
        if !ids.is_empty() {
            self.phase = Phase::Deltas(ids);
            return Ok(());
        }
        let catalog = core.catalog();
        let references = catalog
            .references()
            .map(|references| &references.unreadable);
        let models = references.into_iter().flatten();
        self.report
            .unreadable
            .extend(models.filter(|name| name.starts_with("model")).cloned());
        let free = catalog
            .hashes()
            .filter(|hash| catalog.is_free(hash))
            .copied();
        self.phase = match self.report.unreadable.is_empty() {
            true => Phase::Tensors(free.collect()),
            // What a damaged record needed is not known.
            false => Phase::Done,
        };
        Ok(())
    }

    fn delete_tensors(
        &mut self,
        core: &Core,
        mut hashes: Vec<WeightHash>,
    ) -> Result<(), WeightError> {
        let rest = hashes.len().saturating_sub(TENSORS_PER_STEP);
        let group: BTreeSet<WeightHash> = hashes.split_off(rest).into_iter().collect();
        if self.options.dry_run {
            self.report.removed_tensors += group.len() as u64;
        } else if !group.is_empty() {
            let released = core.release(&group)?;
            self.report.removed_tensors += released.tensors + released.bases;
            self.report.reclaimed_bytes += released.freed_bytes;
        }
        if !hashes.is_empty() {
            self.phase = Phase::Tensors(hashes);
            return Ok(());
        }
        let catalog = core.catalog();
        let bases = catalog.hashes().filter(|hash| catalog.is_only_a_base(hash));
        let bases: Vec<WeightHash> = bases.copied().collect();
        drop(catalog);
        self.report.kept_bases = bases.len() as u64;
        match self.options.rebase && !self.options.dry_run {
            true => self.phase = Phase::Bases(bases),
            false => self.list_chunks(core),
        }
        Ok(())
    }

    fn rebase(&mut self, core: &Core, mut bases: Vec<WeightHash>) -> Result<(), WeightError> {
        let rest = bases.len().saturating_sub(BASES_PER_STEP);
        let (rebased, released) = core.remove_bases(bases.split_off(rest))?;
        self.report.rebased_tensors += rebased;
        self.report.removed_tensors += released.tensors + released.bases;
        self.report.reclaimed_bytes += released.freed_bytes;
        self.report.kept_bases -= released.tensors.min(self.report.kept_bases);
        match bases.is_empty() {
            true => self.list_chunks(core),
            false => self.phase = Phase::Bases(bases),
        }
        Ok(())
    }

    /// Lists the chunks that no header names and no running operation may come to name.
    fn list_chunks(&mut self, core: &Core) {
        let mut keys = core.blobs.keys_with_prefix(Key::CHUNKS);
        keys.retain(|key| self.is_garbage(key));
        self.phase = Phase::Chunks(keys);
    }

    fn is_garbage(&self, chunk: &[u8]) -> bool {
        let Some(Key::Chunk(body, _)) = Key::parse(chunk) else {
            return false;
        };
        if body >= self.fence {
            // mutant: weights-no-gc-fence
            return false;
        }
        !self.named.contains(&body)
    }

    fn delete_chunks(&mut self, core: &Core, mut keys: Vec<Vec<u8>>) -> Result<(), WeightError> {
        let rest = keys.len().saturating_sub(RECORDS_PER_STEP);
        let group = keys.split_off(rest);
        self.report.removed_chunks += self.delete(core, group, |_| true)?;
        if !keys.is_empty() {
            self.phase = Phase::Chunks(keys);
            return Ok(());
        }
        let prefixes = [Key::HINTS, Key::SKETCHES, Key::BASE_LINKS];
        let keys = prefixes
            .iter()
            .flat_map(|prefix| core.blobs.keys_with_prefix(prefix));
        let keys = keys.filter(|key| is_orphan(core, key)).collect();
        self.phase = Phase::Records(keys);
        Ok(())
    }

    fn delete_records(&mut self, core: &Core, mut keys: Vec<Vec<u8>>) -> Result<(), WeightError> {
        let rest = keys.len().saturating_sub(RECORDS_PER_STEP);
        let group = keys.split_off(rest);
        // A tensor may have come since they were listed: then its records are its own.
        self.report.removed_records += self.delete(core, group, |key| is_orphan(core, key))?;
        self.phase = match keys.is_empty() {
            true => Phase::Done,
            false => Phase::Records(keys),
        };
        Ok(())
    }

    /// Deletes those of the records that still have to go, unless nothing is to be deleted; returns how many.
    fn delete(
        &mut self,
        core: &Core,
        mut keys: Vec<Vec<u8>>,
        must_go: impl Fn(&[u8]) -> bool,
    ) -> Result<u64, WeightError> {
        let mut ledger = core.ledger();
        keys.retain(|key| must_go(key));
        let count = keys.len() as u64;
        if self.options.dry_run {
            let lens = keys.iter().map(|key| core.blobs.len_of(key));
            self.report.reclaimed_bytes += lens.flatten().sum::<u64>();
            return Ok(count);
        }
        let mut changes = Changes::default();
        changes.deletes.extend(keys);
        self.report.reclaimed_bytes += core.commit_deletes(&mut ledger, changes)?;
        Ok(count)
    }
}

/// Whether a record belongs to a tensor that is not there.
fn is_orphan(core: &Core, key: &[u8]) -> bool {
    match Key::parse(key) {
        Some(Key::Hint(_, hash) | Key::Sketch(_, hash) | Key::BaseLink { hash, .. }) => {
            core.catalog().object(&hash).is_none()
        }
        _ => false,
    }
}

/// The body that a tensor's header names; an error if its base is not the one that its link protects.
fn named_by(core: &Core, hash: &WeightHash) -> Result<Option<BodyId>, WeightError> {
    let linked_now = || core.catalog().object(hash).map(|entry| entry.base);
    loop {
        let Some(record) = core.object(hash)? else {
            return Ok(None);
        };
        let named = record.base.map(|base| base.hash);
        match linked_now() {
            None => return Ok(None),
            Some(linked) if linked == named => return Ok(body_of(&record.body)),
            // It may have been stored with another base between the two looks.
            Some(_) if core.moved(hash, &record)? => {}
            Some(_) => {
                let reason = "its header and its base link name different bases";
                return Err(WeightError::corrupt("tensor", hash.to_string(), reason));
            }
        }
    }
}
