//! What is in the store, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use core_view::safetensors::TensorInfo;

use crate::record::Key;
use crate::sketch::SketchBuilder;
use crate::{CoralAlias, HashKey, SketchPlace, WeightError, WeightHash};

/// The content of the store by its keys; built at open without reading a value.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    objects: BTreeMap<WeightHash, ObjectEntry>,
    aliases: BTreeSet<(CoralAlias, WeightHash)>,
    hints: BTreeSet<([u8; 16], WeightHash)>,
    models: BTreeSet<Arc<str>>,
    deltas: BTreeSet<WeightHash>,
    /// The tensors that have a sketch, by where it is kept.
    sketches: BTreeSet<(SketchPlace, WeightHash)>,
    /// Each base with a tensor that is stored against it.
    dependents: BTreeSet<(WeightHash, WeightHash)>,
    references: Option<References>,
}

#[derive(Debug)]
pub(super) struct ObjectEntry {
    pub(super) alias: CoralAlias,
    /// Number and digest of each use, oldest first.
    pub(super) uses: Vec<(u64, [u8; 16])>,
    /// Under which the tensor is found by its beginning, if it is large.
    pub(super) hint: Option<[u8; 16]>,
    /// Where its sketch is kept, if it has one.
    pub(super) sketch: Option<SketchPlace>,
    /// What it is stored against, if anything.
    pub(super) base: Option<WeightHash>,
    /// How many running operations rely on the tensor.
    pins: u32,
    /// Whether it is being deleted: nobody may begin to rely on it.
    doomed: bool,
}

/// Who needs which tensor; read from manifests and deltas when first asked for.
#[derive(Debug, Default)]
pub(super) struct References {
    by_models: HashMap<WeightHash, Vec<Arc<str>>>,
    by_deltas: BTreeSet<(HashKey, WeightHash)>,
    /// Models and deltas whose records can't be read: anything may be needed by them.
    pub(super) unreadable: BTreeSet<String>,
}

impl References {
    pub(super) fn add_model(&mut self, name: &Arc<str>, roots: &BTreeSet<WeightHash>) {
        for root in roots {
            self.by_models
                .entry(*root)
                .or_default()
                .push(Arc::clone(name));
        }
    }

    pub(super) fn remove_model(&mut self, name: &str) {
        self.unreadable.remove(&unreadable_model(name));
        self.by_models.retain(|_, models| {
            models.retain(|model| **model != *name);
            !models.is_empty()
        });
    }

    pub(super) fn add_delta(&mut self, reference: HashKey, id: WeightHash) {
        self.by_deltas.insert((reference, id));
    }

    pub(super) fn remove_delta(&mut self, id: &WeightHash) {
        self.unreadable.remove(&unreadable_delta(id));
        self.by_deltas.retain(|(_, delta)| delta != id);
    }

    pub(super) fn models_of(&self, hash: &WeightHash) -> &[Arc<str>] {
        self.by_models.get(hash).map_or(&[], Vec::as_slice)
    }

    fn delta_of(&self, key: HashKey) -> Option<WeightHash> {
        let first = (key, WeightHash::from_bytes([0; 32]));
        let found = self.by_deltas.range(first..).next();
        found
            .filter(|(reference, _)| *reference == key)
            .map(|(_, id)| *id)
    }
}

/// The entry of a damaged manifest in [`References::unreadable`].
pub(super) fn unreadable_model(name: &str) -> String {
    format!("model {name:?}")
}

/// The entry of a damaged delta in [`References::unreadable`].
pub(super) fn unreadable_delta(id: &WeightHash) -> String {
    format!("delta {id}")
}

impl Catalog {
    /// Takes a key in that is in the store; chunks and the store's own records are not kept.
    pub(super) fn insert(&mut self, key: Key) {
        match key {
            Key::Object(hash, alias) => {
                self.aliases.insert((alias, hash));
                let entry = self.objects.entry(hash).or_insert_with(|| ObjectEntry {
                    alias,
                    uses: Vec::new(),
                    hint: None,
                    sketch: None,
                    base: None,
                    pins: 0,
                    doomed: false,
                });
                entry.alias = alias;
            }
            // Without its object a hint leads nowhere.
            Key::Hint(hint, hash) => {
                if let Some(entry) = self.objects.get_mut(&hash) {
                    entry.hint = Some(hint);
                    self.hints.insert((hint, hash));
                }
            }
            // A use whose tensor is missing is reported by verify, which reads the keys itself.
            Key::Label {
                hash,
                number,
                digest,
            } => {
                if let Some(entry) = self.objects.get_mut(&hash) {
                    entry.uses.push((number, digest));
                }
            }
            Key::Delta(id) => {
                self.deltas.insert(id);
            }
            // Another name of the same letters after each commit: it tells them apart.
            Key::Model(name) => {
                self.models.replace(name.into());
            }
            Key::Sketch(place, hash) => {
                if let Some(entry) = self.objects.get_mut(&hash) {
                    entry.sketch = Some(place);
                    self.sketches.insert((place, hash));
                }
            }
            // A link without its tensor protects nothing; verify reports it.
            Key::BaseLink { base, hash } => {
                if let Some(entry) = self.objects.get_mut(&hash) {
                    entry.base = Some(base);
                    self.dependents.insert((base, hash));
                }
            }
            Key::Format | Key::Bodies | Key::Chunk(..) | Key::Staging(_) | Key::Journal(_) => {}
        }
    }

    pub(super) fn remove_object(&mut self, hash: &WeightHash) {
        if let Some(entry) = self.objects.remove(hash) {
            self.aliases.remove(&(entry.alias, *hash));
            if let Some(hint) = entry.hint {
                self.hints.remove(&(hint, *hash));
            }
            if let Some(place) = entry.sketch {
                self.sketches.remove(&(place, *hash));
            }
            if let Some(base) = entry.base {
                self.dependents.remove(&(base, *hash));
            }
        }
    }

    /// Takes a base link out whose tensor is stored otherwise now.
    pub(super) fn remove_link(&mut self, base: &WeightHash, hash: &WeightHash) {
        self.dependents.remove(&(*base, *hash));
        if let Some(entry) = self.objects.get_mut(hash)
            && entry.base == Some(*base)
        {
            entry.base = None;
        }
    }

    /// The tensors that are stored against a base, those that are being deleted left out.
    pub(super) fn dependents_of(&self, base: &WeightHash) -> impl Iterator<Item = WeightHash> {
        let (first, last) = ([0; 32], [0xff; 32]);
        let range = (*base, WeightHash::from_bytes(first))..=(*base, WeightHash::from_bytes(last));
        let dependents = self.dependents.range(range).map(|(_, hash)| *hash);
        dependents.filter(|hash| self.objects.get(hash).is_some_and(|entry| !entry.doomed))
    }

    /// Whether there is any sketch of a tensor of that type and about that size.
    pub(super) fn has_alike(&self, info: &TensorInfo) -> bool {
        let Some(place) = SketchBuilder::new(info.dtype, &info.shape, info.len_bytes()) else {
            return false;
        };
        let mut ranges = self.near(&place.so_far().place());
        ranges.next().is_some()
    }

    /// The sketches of tensors of that type, last dimension and about that size.
    fn near(
        &self,
        sketch: &SketchPlace,
    ) -> impl Iterator<Item = &(SketchPlace, WeightHash)> + use<'_> {
        let sketch = *sketch;
        let sizes = sketch.size_log2.saturating_sub(1)..=sketch.size_log2.saturating_add(1);
        sizes.flat_map(move |size_log2| {
            let place = |signs| SketchPlace {
                size_log2,
                signs,
                ..sketch
            };
            let first = (place(0), WeightHash::from_bytes([0; 32]));
            let last = (place(u64::MAX), WeightHash::from_bytes([0xff; 32]));
            self.sketches.range(first..=last)
        })
    }

    /// The tensors whose signs are nearest to those of a sketch, at most `count`.
    pub(super) fn alike(
        &self,
        sketch: &SketchPlace,
        count: usize,
    ) -> Vec<(SketchPlace, WeightHash)> {
        let mut found: Vec<(u32, SketchPlace, WeightHash)> = self
            .near(sketch)
            .filter_map(|(place, hash)| Some((place.distance(sketch)?, *place, *hash)))
            .collect();
        found.sort_unstable();
        found.truncate(count);
        found
            .into_iter()
            .map(|(_, place, hash)| (place, hash))
            .collect()
    }

    pub(super) fn remove_model(&mut self, name: &str) {
        self.models.remove(name);
        if let Some(references) = &mut self.references {
            references.remove_model(name);
        }
    }

    pub(super) fn remove_delta(&mut self, id: &WeightHash) {
        self.deltas.remove(id);
        if let Some(references) = &mut self.references {
            references.remove_delta(id);
        }
    }

    pub(super) fn object(&self, hash: &WeightHash) -> Option<&ObjectEntry> {
        self.objects.get(hash)
    }

    pub(super) fn hashes(&self) -> impl ExactSizeIterator<Item = &WeightHash> {
        self.objects.keys()
    }

    pub(super) fn models(&self) -> &BTreeSet<Arc<str>> {
        &self.models
    }

    pub(super) fn deltas(&self) -> &BTreeSet<WeightHash> {
        &self.deltas
    }

    /// The tensors that begin as the hint says.
    pub(super) fn hinted(&self, hint: [u8; 16]) -> Vec<WeightHash> {
        let first = (hint, WeightHash::from_bytes([0; 32]));
        self.hints
            .range(first..)
            .take_while(|(found, _)| *found == hint)
            .map(|(_, hash)| *hash)
            .collect()
    }

    /// The tensor that a key leads to.
    pub(super) fn resolve(&self, key: &HashKey) -> Result<Option<WeightHash>, WeightError> {
        let alias = match key {
            HashKey::Sha256(hash) => {
                return Ok(self.objects.contains_key(hash).then_some(*hash));
            }
            HashKey::Coral(alias) => *alias,
        };
        let first = (alias, WeightHash::from_bytes([0; 32]));
        let mut candidates = self
            .aliases
            .range(first..)
            .take_while(|(found, _)| *found == alias);
        let found = candidates.next().map(|(_, hash)| *hash);
        match candidates.count() {
            0 => Ok(found),
            others => Err(WeightError::AmbiguousAlias {
                alias: *key,
                candidates: others + 1,
            }),
        }
    }

    /// Keeps a tensor until it is unpinned; `false` if it is not there, or about to go.
    pub(super) fn pin(&mut self, hash: &WeightHash) -> bool {
        match self.objects.get_mut(hash) {
            Some(entry) if !entry.doomed => {
                entry.pins += 1;
                true
            }
            Some(_) | None => false,
        }
    }

    pub(super) fn unpin(&mut self, hash: &WeightHash) {
        if let Some(entry) = self.objects.get_mut(hash) {
            entry.pins = entry.pins.saturating_sub(1);
        }
    }

    pub(super) fn references(&self) -> Option<&References> {
        self.references.as_ref()
    }

    pub(super) fn references_mut(&mut self) -> Option<&mut References> {
        self.references.as_mut()
    }

    pub(super) fn set_references(&mut self, references: References) {
        self.references = Some(references);
    }

    /// Who needs a tensor besides its own uses and running operations.
    ///
    /// Before the references were read, everything counts as needed.
    fn user_of(&self, hash: &WeightHash) -> Option<String> {
        let mut user = self.namer_of(hash);
        if user.is_none() {
            // mutant: weights-no-base-check
            let dependent = self.dependents_of(hash).next();
            user = dependent.map(|tensor| format!("tensor {tensor}, which is stored against it"));
        }
        user
    }

    /// As [`Catalog::user_of`], leaving out what is stored against it.
    fn namer_of(&self, hash: &WeightHash) -> Option<String> {
        let Some(references) = &self.references else {
            return Some("models that were not read yet".into());
        };
        if let Some(model) = references.models_of(hash).first() {
            return Some(format!("model {model:?}"));
        }
        let alias = self.objects.get(hash).map(|entry| entry.alias);
        let keys = [Some(HashKey::from(*hash)), alias.map(HashKey::from)];
        let delta = keys
            .into_iter()
            .flatten()
            .find_map(|key| references.delta_of(key));
        if let Some(delta) = delta {
            return Some(format!("delta {delta}"));
        }
        let unreadable = references.unreadable.first();
        unreadable.map(|name| format!("possibly the damaged {name}"))
    }

    /// Whether all that needs a tensor is what is stored against it.
    pub(super) fn is_only_a_base(&self, hash: &WeightHash) -> bool {
        let unused = |entry: &ObjectEntry| entry.pins == 0 && entry.uses.is_empty();
        self.objects.get(hash).is_some_and(unused)
            && self.dependents_of(hash).next().is_some()
            && self.namer_of(hash).is_none()
    }

    /// Whether nothing at all needs a tensor that is there.
    pub(super) fn is_free(&self, hash: &WeightHash) -> bool {
        self.objects
            .get(hash)
            .is_some_and(|entry| entry.pins == 0 && entry.uses.is_empty())
            && self.user_of(hash).is_none()
    }

    fn is_doomed(&self, hash: &WeightHash) -> bool {
        self.objects.get(hash).is_some_and(|entry| entry.doomed)
    }

    /// Marks a tensor as being deleted if nothing needs it; from then on nobody can begin to.
    pub(super) fn doom(&mut self, hash: &WeightHash) -> bool {
        let free = self.is_free(hash) && !self.is_doomed(hash);
        if let Some(entry) = self.objects.get_mut(hash).filter(|_| free) {
            entry.doomed = true;
        }
        free
    }

    /// Marks a tensor with uses of its own as being deleted, if nothing else needs it.
    ///
    /// # Errors
    /// What needs it.
    pub(super) fn doom_with_uses(&mut self, hash: &WeightHash) -> Result<(), String> {
        if let Some(user) = self.user_of(hash) {
            return Err(user);
        }
        match self.objects.get_mut(hash) {
            Some(entry) if entry.pins > 0 => Err("an operation that is running".into()),
            Some(entry) => {
                entry.doomed = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes the mark back from a tensor that could not be deleted.
    pub(super) fn spare(&mut self, hash: &WeightHash) {
        if let Some(entry) = self.objects.get_mut(hash) {
            entry.doomed = false;
        }
    }
}
