//! Where a store is, and how it is opened.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tier_nvme::{NvmeError, NvmeStore, RealVolume, StorageConfig, VolumeOptions};
use weightstore::NativeStore;

use crate::error::CliError;

/// The store that a command works on.
#[derive(Debug, Args)]
pub(super) struct Location {
    /// Directory of the store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
}

impl Location {
    /// Opens the store for changes.
    pub(super) fn open(&self) -> Result<NvmeStore, CliError> {
        self.open_to_change(StorageConfig::default().with_create(false))
    }

    /// Opens the store for changes that leave every value as it is.
    pub(super) fn open_unchanged(&self) -> Result<NvmeStore, CliError> {
        self.open_with(StorageConfig::default().with_create(false))
    }

    /// Opens the store for changes, and makes it if there is none.
    pub(super) fn open_or_make(&self, segment_bytes: Option<u64>) -> Result<NvmeStore, CliError> {
        let config = StorageConfig::default();
        self.open_to_change(match segment_bytes {
            Some(bytes) => config.with_segment_bytes(bytes),
            None => config,
        })
    }

    /// Opens the store without changing anything in it. It is locked all the same: what is read is not
    /// taken away meanwhile.
    pub(super) fn open_for_reading(&self) -> Result<NvmeStore, CliError> {
        let config = StorageConfig::default()
            .with_create(false)
            .with_read_only(true);
        let explain = |error| self.explain(error);
        let volume = RealVolume::open(&self.store, VolumeOptions::default()).map_err(explain)?;
        NvmeStore::on_volume(Arc::new(volume), config).map_err(explain)
    }

    fn open_to_change(&self, config: StorageConfig) -> Result<NvmeStore, CliError> {
        let store = self.open_with(config)?;
        if NativeStore::is_kept_in(&store)? {
            let path = self.store.display().to_string();
            return Err(CliError::HoldsModels { path });
        }
        Ok(store)
    }

    fn open_with(&self, config: StorageConfig) -> Result<NvmeStore, CliError> {
        NvmeStore::new(&self.store, config).map_err(|error| self.explain(error))
    }

    /// A directory that can't be opened is not a store.
    fn explain(&self, error: NvmeError) -> CliError {
        let reason = match error {
            NvmeError::FileNotFound { .. } => "it does not exist".to_owned(),
            NvmeError::FileExists { .. } => "it is not a directory".to_owned(),
            NvmeError::Io { source, .. } if source.kind() == ErrorKind::NotADirectory => {
                "it is not a directory".to_owned()
            }
            NvmeError::NotAStore { reason, .. } => reason,
            error => return error.into(),
        };
        let reason = match reason.contains("; ") {
            true => reason,
            false => format!("{reason}; check --store, or put something to make one"),
        };
        let path = self.store.display().to_string();
        NvmeError::NotAStore { path, reason }.into()
    }
}
