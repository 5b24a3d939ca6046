//! The store on tier-nvme: durable, deduplicating, with models.

mod base;
mod body_writer;
mod buffers;
mod catalog;
mod changes;
mod commit;
mod comparison;
mod config;
mod content;
mod core;
mod export;
mod gc;
mod import;
mod journal;
mod model_table;
mod models;
mod placement;
mod reachability;
mod rebase;
mod rooms;
mod session;
mod staging;
mod stats;
mod tensor;
mod verify;
mod weights;

use std::ops::Deref;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tier_nvme::{NvmeStore, Volume};

use self::core::Core;
use crate::WeightError;

pub use comparison::{
    ElementChange, LayerComparison, ModelComparison, TensorChange, TensorComparison,
};
pub use config::NativeConfig;
pub use export::{ExportOptions, ExportReport};
pub use gc::{Gc, GcOptions, GcReport};
pub use import::{ImportOptions, ImportReport, OnProgress, Progress, SourceFile};
pub use models::{ModelFile, ModelInfo, ModelTensor, RemovalReport};
pub use placement::SlotTarget;
pub use stats::{EncodingStats, Saved, StoreStats};
pub use verify::{Damage, DamageKind, VerifyOptions, VerifyReport};

/// Tensors and models in a directory: each content once, durable, verified when read.
///
/// All methods take `&self` and may be called from several threads. A model is imported and removed
/// atomically; a tensor goes when the last model and the last use of it are gone.
pub struct NativeStore {
    core: Core,
    /// Whether the store is closed; calls hold it for reading while they run.
    closed: RwLock<bool>,
}

impl std::fmt::Debug for NativeStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NativeStore")
            .field("blobs", &self.core.blobs)
            .finish_non_exhaustive()
    }
}

impl NativeStore {
    /// Opens the store in a directory, or makes one if the configuration allows it.
    ///
    /// # Errors
    /// [`WeightError::NotAWeightStore`] if the directory holds another kind of blob store;
    /// [`WeightError::Newer`]; [`WeightError::Corrupt`]; [`WeightError::InvalidConfig`];
    /// [`WeightError::Storage`] if the directory is in use, read-only, full or no store at all.
    #[cfg(target_os = "linux")]
    pub fn open(path: impl AsRef<Path>, config: NativeConfig) -> Result<Self, WeightError> {
        config.check()?;
        let blobs = NvmeStore::new(path, config.storage().clone())
            .map_err(|error| WeightError::storage("open the store", error))?;
        Self::on_blobs(blobs, config)
    }

    /// Opens the store on a volume, such as a simulated one.
    ///
    /// # Errors
    /// As [`NativeStore::open`].
    pub fn on_volume(volume: Arc<dyn Volume>, config: NativeConfig) -> Result<Self, WeightError> {
        config.check()?;
        let blobs = NvmeStore::on_volume(volume, config.storage().clone())
            .map_err(|error| WeightError::storage("open the store", error))?;
        Self::on_blobs(blobs, config)
    }

    fn on_blobs(blobs: NvmeStore, config: NativeConfig) -> Result<Self, WeightError> {
        Ok(Self {
            core: Core::open(blobs, config)?,
            closed: RwLock::new(false),
        })
    }

    /// Whether a blob store holds weights, so that whoever changes it otherwise would damage them.
    ///
    /// # Errors
    /// [`WeightError::Corrupt`]; [`WeightError::Storage`].
    pub fn is_kept_in(blobs: &NvmeStore) -> Result<bool, WeightError> {
        core::holds_weights(blobs)
    }

    /// The blob store below, for its statistics and its recovery report.
    pub fn blobs(&self) -> &NvmeStore {
        &self.core.blobs
    }

    /// On which pages the memory is from which encoded chunks go to the device, and why not on better ones.
    #[cfg(target_os = "linux")]
    pub fn pages(&self) -> core_alloc::HugePageReport {
        self.core.buffers.pages()
    }

    /// Begins a call; the store is not closed before the guard is gone.
    fn enter(&self) -> Result<Entered<'_>, WeightError> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Err(WeightError::Closed);
        }
        Ok(Entered {
            core: &self.core,
            _closed: closed,
        })
    }

    /// Waits for running calls and closes the blob store.
    fn shut(&self) -> Result<(), WeightError> {
        let mut closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *closed, true) {
            return Ok(());
        }
        self.core
            .blobs
            .close()
            .map_err(|error| WeightError::storage("close the store", error))
    }
}

/// A running call.
struct Entered<'a> {
    core: &'a Core,
    _closed: RwLockReadGuard<'a, bool>,
}

impl Deref for Entered<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        self.core
    }
}
