//! A weight store over one HDF5 file.

use std::path::Path;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tier_nvme::{FileName, NvmeError, RealVolume, Volume, VolumeOptions};

use super::config::{Hdf5Config, Hdf5Mode};
use super::file::CoralFile;
use super::library::unusable;
use super::publication::{failed, publish, unpublished};
use super::staging::Staging;
use super::volume_source::VolumeSource;
use super::writer::CoralFileWriter;
use crate::memory::check_supplied;
use crate::{
    Delta, DeltaStorageInfo, HashKey, StorageInfo, WeightError, WeightHash, WeightMetadata,
    WeightStore, WeightTensor,
};

/// A weight store over one HDF5 file in Coral's layout.
///
/// Changes stay in memory until [`commit`](Self::commit) or [`close`](WeightStore::close): then a whole new
/// file is written beside the old one, made durable, and renamed over it. Whatever happens meanwhile, the name
/// leads to the old file or to the new one, whole. Dropping the store commits too, but can't say
/// whether that went well.
///
/// One program writes a file at a time; a commit refuses a file that another one has changed. A tensor keeps the
/// name of its first use, as in Coral.
///
/// ```
/// use core_view::DType;
/// use weightstore::{Hdf5Config, Hdf5Store, WeightStore, WeightTensor};
///
/// let directory = tempfile::tempdir()?;
/// let path = directory.path().join("weights.h5");
/// let store = Hdf5Store::open(&path, Hdf5Config::default())?;
/// let weight = WeightTensor::new("fc.bias", DType::F32, &[2], vec![0.5_f32, -0.5])?;
/// let hash = store.store(&weight, None)?;
/// store.close()?;
///
/// let store = Hdf5Store::open(&path, Hdf5Config::default())?;
/// let loaded = store.load(&hash.into())?.ok_or("absent")?;
/// assert_eq!(loaded.bytes(), weight.bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Hdf5Store {
    volume: Arc<dyn Volume>,
    name: FileName,
    config: Hdf5Config,
    /// `None` once closed.
    staging: RwLock<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    staging: Staging,
    /// What the file looked like when it was read.
    stamp: Option<Stamp>,
}

/// Length and beginning of a file: what changes when another program writes to it.
type Stamp = (u64, Vec<u8>);

/// Bytes of the beginning: the superblock and, in a file that Coral wrote, the root group.
const STAMP_BYTES: u64 = 2048;

impl Hdf5Store {
    /// Opens a file by its path.
    ///
    /// # Errors
    /// [`WeightError::Storage`] if there is none and the mode asks for one; [`WeightError::Hdf5`];
    /// [`WeightError::InvalidConfig`].
    pub fn open(filepath: impl AsRef<Path>, config: Hdf5Config) -> Result<Self, WeightError> {
        let path = filepath.as_ref();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = FileName::new(name.unwrap_or_default())
            .map_err(|error| failed("use the file's name", error))?;
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // The lengths of foreign files are not multiples of anything.
        let options = VolumeOptions::default()
            .with_direct_io(false)
            .with_read_only(config.mode == Hdf5Mode::Read);
        let creates = matches!(config.mode, Hdf5Mode::Write | Hdf5Mode::Append);
        let volume = match creates {
            true => RealVolume::create(folder, options),
            false => RealVolume::open(folder, options),
        };
        let volume = volume.map_err(|error| failed("open the directory", error))?;
        Self::on_volume(Arc::new(volume), name, config)
    }

    /// Opens a file of a volume.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn on_volume(
        volume: Arc<dyn Volume>,
        name: FileName,
        config: Hdf5Config,
    ) -> Result<Self, WeightError> {
        config.compression.checked()?;
        unpublished(&name)?;
        let store = Self {
            volume,
            name,
            config,
            staging: RwLock::new(None),
        };
        let open = match store.config.mode {
            Hdf5Mode::Write => store.fresh(),
            _ => store.read()?,
        };
        *store.staging.write().map_err(|_| poisoned())? = Some(open);
        Ok(store)
    }

    /// Nothing, to be written whatever follows.
    fn fresh(&self) -> Open {
        let staging = Staging {
            changed: true,
            ..Staging::default()
        };
        Open {
            staging,
            stamp: None,
        }
    }

    /// What the file holds.
    fn read(&self) -> Result<Open, WeightError> {
        let file = match self.volume.open(&self.name) {
            Ok(file) => file,
            Err(NvmeError::FileNotFound { .. }) if self.config.mode == Hdf5Mode::Append => {
                return Ok(self.fresh());
            }
            Err(error) => return Err(failed("open the file", error)),
        };
        let source = VolumeSource::new(file)
            .map_err(|error| WeightError::storage("measure the file", error))?;
        let stamp = stamp(&source)?;
        // h5py takes an empty file for none, and Coral makes one.
        if stamp.0 == 0 && self.config.mode == Hdf5Mode::Append {
            return Ok(Open {
                stamp: Some(stamp),
                ..self.fresh()
            });
        }
        let file = CoralFile::open(self.name.as_str(), Arc::new(source))?;
        if self.config.mode != Hdf5Mode::Read
            && let Some(foreign) = file.foreign().first()
        {
            let what =
                format!("it also holds {foreign:?}, which a rewrite would lose; open it with r");
            return Err(unusable(self.name.as_str(), what));
        }
        Ok(Open {
            staging: Staging::of(file)?,
            stamp: Some(stamp),
        })
    }

    /// Writes what was changed; nothing to do where nothing was.
    ///
    /// # Errors
    /// [`WeightError::SourceChanged`] if another program changed the file, [`WeightError::Storage`]; the file
    /// is the old one then.
    pub fn commit(&self) -> Result<(), WeightError> {
        let mut guard = self.write()?;
        let open = guard.as_mut().ok_or(WeightError::Closed)?;
        self.commit_open(open)
    }

    fn commit_open(&self, open: &mut Open) -> Result<(), WeightError> {
        if !open.staging.changed {
            return Ok(());
        }
        self.refuse_foreign_change(open.stamp.as_ref())?; // mutant: weights-hdf5-no-foreign-check
        let mut writer = CoralFileWriter::new(self.config.compression);
        open.staging.write(&mut writer)?;
        let mut bytes = Vec::new();
        writer.finish_to(&mut bytes)?;
        publish(&self.volume, &self.name, &bytes)?;
        drop(bytes);
        *open = self.read()?;
        Ok(())
    }

    fn refuse_foreign_change(&self, expected: Option<&Stamp>) -> Result<(), WeightError> {
        if self.config.mode == Hdf5Mode::Write && expected.is_none() {
            return Ok(());
        }
        let found = match self.volume.open(&self.name) {
            Err(NvmeError::FileNotFound { .. }) => None,
            Err(error) => return Err(failed("open the file", error)),
            Ok(file) => {
                let source = VolumeSource::new(file)
                    .map_err(|error| WeightError::storage("measure the file", error))?;
                Some(stamp(&source)?)
            }
        };
        if found.as_ref() == expected {
            return Ok(());
        }
        Err(WeightError::SourceChanged {
            file: self.name.to_string(),
            reason: "another program wrote to it".to_owned(),
        })
    }

    fn write(&self) -> Result<RwLockWriteGuard<'_, Option<Open>>, WeightError> {
        self.staging.write().map_err(|_| poisoned())
    }

    /// As [`write`](Self::write), for a change.
    fn change(&self) -> Result<RwLockWriteGuard<'_, Option<Open>>, WeightError> {
        let guard = self.write()?;
        if guard.is_some() && self.config.mode == Hdf5Mode::Read {
            return Err(WeightError::InvalidConfig {
                field: "mode",
                reason: "the file is open for reading only; open it with r+ or a".to_owned(),
            });
        }
        Ok(guard)
    }

    fn reading(&self) -> Result<Reading<'_>, WeightError> {
        let guard = self.staging.read().map_err(|_| poisoned())?;
        match guard.is_some() {
            true => Ok(Reading(guard)),
            false => Err(WeightError::Closed),
        }
    }

    fn refuse_too_much(&self, staging: &Staging, added: usize) -> Result<(), WeightError> {
        let found_bytes = staging.content_bytes().saturating_add(added as u64);
        let limit_bytes = self.config.content_bytes_max;
        if found_bytes <= limit_bytes {
            return Ok(());
        }
        Err(WeightError::TooLarge {
            what: format!("the HDF5 file {}", self.name),
            found_bytes,
            limit_bytes,
        })
    }
}

impl Drop for Hdf5Store {
    fn drop(&mut self) {
        if let Ok(guard) = self.staging.get_mut()
            && let Some(mut open) = guard.take()
        {
            // Nobody is left to be told; who wants to know closes the store.
            let _ = self.commit_open(&mut open);
        }
    }
}

fn poisoned() -> WeightError {
    WeightError::storage("lock the store", "a thread panicked while it changed it")
}

fn stamp(source: &VolumeSource) -> Result<Stamp, WeightError> {
    use crate::ByteSource;
    let failed = |error| WeightError::storage("read the file", error);
    let len_bytes = source.len_bytes().map_err(failed)?;
    let mut start = vec![0; len_bytes.min(STAMP_BYTES) as usize];
    source.read_exact_at(0, &mut start).map_err(failed)?;
    Ok((len_bytes, start))
}

/// A read lock on content that is not closed.
struct Reading<'a>(RwLockReadGuard<'a, Option<Open>>);

impl Reading<'_> {
    fn staging(&self) -> Result<&Staging, WeightError> {
        self.0
            .as_ref()
            .map(|open| &open.staging)
            .ok_or(WeightError::Closed)
    }
}

impl WeightStore for Hdf5Store {
    fn store(
        &self,
        weight: &WeightTensor,
        hash_key: Option<&HashKey>,
    ) -> Result<WeightHash, WeightError> {
        let (hash, alias) = (weight.compute_hash(), weight.compute_alias());
        check_supplied(weight.name(), hash_key, hash, alias)?;
        super::writer::check_label(weight)?;
        let mut guard = self.change()?;
        let staging = &mut guard.as_mut().ok_or(WeightError::Closed)?.staging;
        if !staging.weights.contains_key(&hash) {
            self.refuse_too_much(staging, weight.bytes().len())?;
            staging.stage(hash, alias, weight)?;
        }
        Ok(hash)
    }

    fn load(&self, hash_key: &HashKey) -> Result<Option<WeightTensor>, WeightError> {
        let (hash, entry, base) = {
            let reading = self.reading()?;
            let staging = reading.staging()?;
            let Some(hash) = staging.resolve(hash_key)? else {
                return Ok(None);
            };
            let Some(entry) = staging.weights.get(&hash) else {
                return Ok(None);
            };
            (hash, entry.clone(), staging.base.clone())
        };
        let weight = entry.load(base.as_deref())?;
        if weight.compute_hash() == hash {
            return Ok(Some(weight));
        }
        let reason = "its content is not what was stored";
        Err(WeightError::corrupt("tensor", hash.to_string(), reason))
    }

    fn exists(&self, hash_key: &HashKey) -> Result<bool, WeightError> {
        Ok(self.reading()?.staging()?.resolve(hash_key)?.is_some())
    }

    fn delete(&self, hash_key: &HashKey) -> Result<bool, WeightError> {
        let mut guard = self.change()?;
        let staging = &mut guard.as_mut().ok_or(WeightError::Closed)?.staging;
        let Some(hash) = staging.resolve(hash_key)? else {
            return Ok(false);
        };
        let Some(alias) = staging.weights.get(&hash).map(|entry| entry.alias) else {
            return Ok(false);
        };
        if let Some(delta) = staging.delta_on(hash, alias) {
            return Err(WeightError::InUse {
                hash,
                user: format!("delta {delta}"),
            });
        }
        staging.remove(hash, alias);
        Ok(true)
    }

    fn list_weights(&self) -> Result<Vec<WeightHash>, WeightError> {
        Ok(self.reading()?.staging()?.weights.keys().copied().collect())
    }

    fn get_metadata(&self, hash_key: &HashKey) -> Result<Option<WeightMetadata>, WeightError> {
        let reading = self.reading()?;
        let staging = reading.staging()?;
        let Some(hash) = staging.resolve(hash_key)? else {
            return Ok(None);
        };
        Ok(staging.weights.get(&hash).map(|entry| entry.metadata(hash)))
    }

    fn store_batch(
        &self,
        weights: &std::collections::BTreeMap<String, WeightTensor>,
    ) -> Result<std::collections::BTreeMap<String, WeightHash>, WeightError> {
        let mut stored = std::collections::BTreeMap::new();
        for (key, weight) in weights {
            stored.insert(key.clone(), self.store(weight, None)?);
        }
        self.commit()?;
        Ok(stored)
    }

    fn get_storage_info(&self) -> Result<StorageInfo, WeightError> {
        let reading = self.reading()?;
        let weights = &reading.staging()?.weights;
        Ok(StorageInfo::new(
            weights.len() as u64,
            weights.values().map(|entry| entry.len_bytes()).sum(),
            weights.values().map(|entry| entry.stored_bytes()).sum(),
            self.config.compression.codec(),
        ))
    }

    fn store_delta(
        &self,
        delta: &Delta,
        delta_hash: Option<&WeightHash>,
    ) -> Result<WeightHash, WeightError> {
        let hash = delta.checked_hash(delta_hash)?;
        super::writer::check_delta(delta)?;
        let mut guard = self.change()?;
        let staging = &mut guard.as_mut().ok_or(WeightError::Closed)?.staging;
        if !staging.deltas.contains_key(&hash) {
            self.refuse_too_much(staging, delta.payload().len())?;
            staging.stage_delta(hash, delta);
        }
        Ok(hash)
    }

    fn load_delta(&self, delta_hash: &WeightHash) -> Result<Option<Delta>, WeightError> {
        let (entry, base) = {
            let reading = self.reading()?;
            let staging = reading.staging()?;
            let Some(entry) = staging.deltas.get(delta_hash) else {
                return Ok(None);
            };
            (entry.clone(), staging.base.clone())
        };
        let delta = entry.load(base.as_deref())?;
        if delta.compute_hash() == *delta_hash {
            return Ok(Some(delta));
        }
        let reason = "its content is not what was stored";
        Err(WeightError::corrupt(
            "delta",
            delta_hash.to_string(),
            reason,
        ))
    }

    fn delta_exists(&self, delta_hash: &WeightHash) -> Result<bool, WeightError> {
        Ok(self.reading()?.staging()?.deltas.contains_key(delta_hash))
    }

    fn delete_delta(&self, delta_hash: &WeightHash) -> Result<bool, WeightError> {
        let mut guard = self.change()?;
        let staging = &mut guard.as_mut().ok_or(WeightError::Closed)?.staging;
        let found = staging.deltas.remove(delta_hash).is_some();
        staging.changed |= found;
        Ok(found)
    }

    fn list_deltas(&self) -> Result<Vec<WeightHash>, WeightError> {
        Ok(self.reading()?.staging()?.deltas.keys().copied().collect())
    }

    fn get_delta_storage_info(&self) -> Result<DeltaStorageInfo, WeightError> {
        let reading = self.reading()?;
        let deltas = &reading.staging()?.deltas;
        let extents = || deltas.values().map(|entry| entry.extent());
        Ok(DeltaStorageInfo::new(
            deltas.len() as u64,
            extents().map(|extent| extent.len_bytes).sum(),
            extents().map(|extent| extent.stored_bytes).sum(),
        ))
    }

    fn close(&self) -> Result<(), WeightError> {
        match self.write()?.take() {
            None => Ok(()),
            Some(mut open) => self.commit_open(&mut open),
        }
    }
}
