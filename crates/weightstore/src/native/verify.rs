//! Reading and checking everything.

mod tensors;

use std::collections::{BTreeMap, BTreeSet};

use super::NativeStore;
use super::core::{Core, described};
use super::export::header_of;
use super::import::{OnProgress, Progress};
use super::tensor::Source;
use crate::record::{Body, BodyId, Key, Place};
use crate::{WeightError, WeightHash};
use tensors::{Limit, check_tensors};

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DamageKind {
    /// A tensor: its header or its content.
    Tensor,
    /// A model: its manifest, or a tensor that it needs is missing.
    Model,
    /// A name under which a single tensor was stored.
    Use,
    /// A delta.
    Delta,
    /// A structure of the store below, or a record that nothing reaches.
    Structure,
}

impl DamageKind {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tensor => "tensor",
            Self::Model => "model",
            Self::Use => "use",
            Self::Delta => "delta",
            Self::Structure => "structure",
        }
    }
}

/// Something that is not what was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// What is damaged.
    pub kind: DamageKind,
    /// Its name: a hash, a model's name, a file and offset.
    pub name: String,
    /// Each model that needs it, with the tensor's name there where there is one: `model: tensor`.
    pub models: Vec<String>,
    /// What does not match.
    pub reason: String,
}

/// The outcome of reading everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Tensors, models, uses, deltas and structures that were checked.
    pub checked: u64,
    /// Bytes of tensors and deltas that were decoded and compared with their digests.
    pub checked_bytes: u64,
    /// Chunks that nothing reaches: of imports that a crash cut off, or that are running.
    pub unreachable: u64,
    /// What is damaged.
    pub corrupt: Vec<Damage>,
    /// The last tensor that was checked, if the options' limit ended it before everything was read.
    pub stopped_at: Option<WeightHash>,
}

impl VerifyReport {
    /// Whether everything is as it was stored.
    pub fn is_whole(&self) -> bool {
        self.corrupt.is_empty()
    }
}

/// What a verification reads, and how fast.
#[derive(Clone, Copy, Default)]
pub struct VerifyOptions<'a> {
    progress: Option<OnProgress<'a>>,
    bytes_per_second_max: Option<u64>,
    bytes_max: Option<u64>,
    after: Option<WeightHash>,
}

impl std::fmt::Debug for VerifyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyOptions")
            .field("bytes_per_second_max", &self.bytes_per_second_max)
            .field("bytes_max", &self.bytes_max)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl<'a> VerifyOptions<'a> {
    /// Whom to tell how far it has come.
    #[must_use]
    pub fn with_progress(mut self, progress: OnProgress<'a>) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Bytes of content, before encoding, that are checked in a second at most; `None` for no limit.
    #[must_use]
    pub fn with_bytes_per_second_max(mut self, bytes: Option<u64>) -> Self {
        self.bytes_per_second_max = bytes;
        self
    }

    /// Bytes of content, before encoding, after which to stop at the end of a tensor; `None` for no limit.
    #[must_use]
    pub fn with_bytes_max(mut self, bytes: Option<u64>) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Goes on after that tensor: where another verification [stopped](VerifyReport::stopped_at).
    #[must_use]
    pub fn with_start_after(mut self, tensor: WeightHash) -> Self {
        self.after = Some(tensor);
        self
    }
}

impl NativeStore {
    /// Reads and checks everything: the store below, every tensor by its leaves, its hash and its alias,
    /// every model, use and delta.
    ///
    /// It runs beside imports and removals: what they change meanwhile is not called damaged.
    ///
    /// # Errors
    /// [`WeightError::Closed`]; what can't be read is in the report.
    pub fn verify(&self, progress: Option<OnProgress<'_>>) -> Result<VerifyReport, WeightError> {
        let options = VerifyOptions::default();
        self.verify_with(&progress.map_or(options, |progress| options.with_progress(progress)))
    }

    /// As [`NativeStore::verify`], not faster than is said, and in parts if that is said.
    ///
    /// Tensors are checked in the order of their hashes, each of their chunks read once, and the bases of
    /// differences once more for each of these. Models are looked at in every part; uses, deltas and
    /// the store below in the last.
    ///
    /// # Errors
    /// As [`NativeStore::verify`].
    pub fn verify_with(&self, options: &VerifyOptions<'_>) -> Result<VerifyReport, WeightError> {
        let core = self.enter()?;
        let mut verification = Verification {
            core: &core,
            options: *options,
            report: VerifyReport::default(),
            bodies: BTreeSet::new(),
            needed_by: BTreeMap::new(),
        };
        verification.models();
        verification.tensors()?;
        if verification.report.stopped_at.is_none() {
            verification.staged();
            verification.records();
            verification.deltas();
            verification.blobs()?;
        }
        let mut report = verification.report;
        report
            .corrupt
            .sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Ok(report)
    }
}

/// A verification under way.
struct Verification<'a> {
    core: &'a Core,
    options: VerifyOptions<'a>,
    report: VerifyReport,
    /// The bodies that headers name.
    bodies: BTreeSet<BodyId>,
    /// For each tensor of a model, `model: tensor`.
    needed_by: BTreeMap<WeightHash, Vec<String>>,
}

impl Verification<'_> {
    fn damage(&mut self, kind: DamageKind, name: String, models: Vec<String>, reason: String) {
        self.report.corrupt.push(Damage {
            kind,
            name,
            models,
            reason,
        });
    }

    fn models(&mut self) {
        let names = self.core.catalog().models().clone();
        for name in names {
            self.report.checked += 1;
            match self.model(&name) {
                Ok(()) | Err(WeightError::ModelNotFound { .. }) => {}
                Err(error) => {
                    self.damage(
                        DamageKind::Model,
                        name.to_string(),
                        Vec::new(),
                        reason_of(&error),
                    );
                }
            }
        }
    }

    fn model(&mut self, name: &str) -> Result<(), WeightError> {
        let manifest = self.core.manifest(name)?;
        for file in &manifest.files {
            let header = header_of(name, file)?;
            for (info, root) in header.tensors().iter().zip(&file.roots) {
                self.needed_by
                    .entry(*root)
                    .or_default()
                    .push(format!("{name}: {}", info.name));
                if self.is_missing(name, root)? {
                    let reason = "its record is missing".to_owned();
                    let users = vec![format!("{name}: {}", info.name)];
                    self.damage(DamageKind::Tensor, root.to_string(), users, reason);
                }
            }
        }
        Ok(())
    }

    /// Whether a model needs a tensor that is not there.
    fn is_missing(&self, model: &str, root: &WeightHash) -> Result<bool, WeightError> {
        if self.core.catalog().object(root).is_some() {
            return Ok(false);
        }
        // The model may have been removed or replaced, and the tensor with it, since its manifest was
        // read; nothing is in between while the lock is held.
        let _ledger = self.core.ledger();
        let manifest = match self.core.manifest(model) {
            Err(WeightError::ModelNotFound { .. }) => return Ok(false),
            manifest => manifest?,
        };
        let needed = manifest.roots().any(|other| other == root);
        Ok(needed && self.core.catalog().object(root).is_none())
    }

    fn tensors(&mut self) -> Result<(), WeightError> {
        let total_bytes = self.core.blobs.stats().live_bytes;
        let mut done_bytes = 0;
        let (core, options) = (self.core, self.options);
        let (before, hashes) = self.split_at_start();
        let limit = Limit {
            bytes_max: options.bytes_max,
            bytes_per_second_max: options.bytes_per_second_max,
        };
        let stopped_at = check_tensors(core, hashes, limit, |checked| {
            done_bytes += checked.len_bytes;
            if let Some(progress) = options.progress {
                progress(Progress {
                    done_bytes: done_bytes.min(total_bytes),
                    total_bytes,
                });
            }
            self.report.checked += 1;
            self.report.checked_bytes += checked.len_bytes;
            self.bodies.extend(checked.body);
            if let Err(reason) = checked.outcome {
                let users = self.needed_by.get(&checked.hash).cloned();
                let name = checked.hash.to_string();
                self.damage(DamageKind::Tensor, name, users.unwrap_or_default(), reason);
            }
        })?;
        self.report.stopped_at = stopped_at;
        if stopped_at.is_none() {
            // What an earlier part has read counts as reachable.
            for hash in before {
                let record = core.object(&hash).ok().flatten();
                self.bodies
                    .extend(record.and_then(|record| body_of(&record.body)));
            }
        }
        Ok(())
    }

    /// The tensors that an earlier part has read, and the others.
    fn split_at_start(&self) -> (Vec<WeightHash>, Vec<WeightHash>) {
        let catalog = self.core.catalog();
        let early = |hash: &WeightHash| self.options.after.is_some_and(|after| *hash <= after);
        catalog.hashes().copied().partition(early)
    }

    /// What transfers have staged counts as reachable.
    fn staged(&mut self) {
        for (hash, body) in self.core.staged() {
            self.report.checked += 1;
            match body {
                Some(body) => drop(self.bodies.insert(body)),
                None => self.damage(
                    DamageKind::Structure,
                    format!("staged tensor {hash}"),
                    Vec::new(),
                    "its record can't be read; discard it".to_owned(),
                ),
            }
        }
    }

    /// The small records: uses, links, hints and sketches, and those of the store itself.
    fn records(&mut self) {
        for key in self.core.blobs.keys_with_prefix(Key::LABELS) {
            let Some(Key::Label {
                hash,
                number,
                digest,
            }) = Key::parse(&key)
            else {
                continue;
            };
            self.report.checked += 1;
            let outcome = match self.core.label(&hash, (number, digest)) {
                Err(error) => Err(reason_of(&error)),
                Ok(_) if self.is_orphan(&hash, &key) => Err("its tensor is missing".to_owned()),
                Ok(_) => Ok(()),
            };
            if let Err(reason) = outcome {
                self.damage(DamageKind::Use, hash.to_string(), Vec::new(), reason);
            }
        }
        let system = [Key::Format, Key::Bodies].map(|key| key.encode());
        let prefixes = [Key::BASE_LINKS, Key::HINTS, Key::SKETCHES];
        let keys = prefixes.map(|prefix| self.core.blobs.keys_with_prefix(prefix));
        for key in system.into_iter().chain(keys.into_iter().flatten()) {
            let Some(parsed) = Key::parse(&key) else {
                continue;
            };
            self.report.checked += 1;
            let (structure, name) = described(&parsed);
            let outcome = match (self.core.read(&parsed), parsed) {
                (Err(error), _) => Err(reason_of(&error)),
                (_, Key::BaseLink { hash, .. }) if self.is_orphan(&hash, &key) => {
                    Err("its tensor is missing".to_owned())
                }
                _ => Ok(()),
            };
            if let Err(reason) = outcome {
                let name = format!("{structure} {name}");
                self.damage(DamageKind::Structure, name, Vec::new(), reason);
            }
        }
    }

    /// Whether a record is there without its tensor.
    fn is_orphan(&self, hash: &WeightHash, key: &[u8]) -> bool {
        if self.core.catalog().object(hash).is_some() {
            return false;
        }
        // Between a commit and its publication the keys are there and the catalog is not up to date.
        let _ledger = self.core.ledger();
        self.core.catalog().object(hash).is_none() && self.core.blobs.contains(key)
    }

    fn deltas(&mut self) {
        let ids = self.core.catalog().deltas().clone();
        for id in ids {
            self.report.checked += 1;
            let outcome = match self.core.delta_record(&id) {
                Ok(Some(record)) => {
                    self.bodies.extend(body_of(&record.body));
                    self.report.checked_bytes += record.body.len_bytes;
                    check_body(self.core, Source::delta(&id, &record.body))
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            // It may have been deleted while it was read.
            if let Err(error) = outcome
                && !self.core.delta_is_gone(&id)
            {
                self.damage(
                    DamageKind::Delta,
                    id.to_string(),
                    Vec::new(),
                    reason_of(&error),
                );
            }
        }
    }

    /// The structures of the store below; the values in it were read above.
    fn blobs(&mut self) -> Result<(), WeightError> {
        let below = self
            .core
            .blobs
            .verify_structures()
            .map_err(|error| WeightError::storage("verify", error))?;
        self.report.checked += below.structures_checked;
        for damage in below.damage {
            let name = format!("{} {}", damage.structure, damage.location);
            self.damage(DamageKind::Structure, name, Vec::new(), damage.reason);
        }
        let chunks = self.core.blobs.keys_with_prefix(Key::CHUNKS);
        let unreachable = chunks.iter().filter(|key| match Key::parse(key) {
            Some(Key::Chunk(body, _)) => !self.bodies.contains(&body),
            _ => true,
        });
        self.report.unreachable = unreachable.count() as u64;
        Ok(())
    }
}

fn check_body(core: &Core, source: Source<'_>) -> Result<(), WeightError> {
    (0..source.body.chunks.len()).try_for_each(|index| core.chunk(source, index).map(drop))
}

pub(super) fn body_of(body: &Body) -> Option<BodyId> {
    match body.place {
        Place::Chunks(number) => Some(number),
        Place::Inline(_) => None,
    }
}

pub(super) fn reason_of(error: &WeightError) -> String {
    match error {
        WeightError::Corrupt { reason, .. } => reason.clone(),
        other => other.to_string(),
    }
}
