//! Where a store is, and how it is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tier_nvme::{NvmeError, RealVolume, StorageConfig, VolumeOptions};
use weightstore::{NativeConfig, NativeStore};

use crate::error::CliError;

/// The store that a command works on.
#[derive(Debug, Args)]
pub(crate) struct Location {
    /// Directory of the store.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: PathBuf,
}

impl Location {
    /// Opens the store for changes, and makes it if there is none.
    pub(crate) fn open_or_make(&self) -> Result<NativeStore, CliError> {
        let opened = NativeStore::open(&self.store, NativeConfig::default());
        opened.map_err(|error| match CliError::from(error) {
            CliError::Weights(weightstore::WeightError::Storage { operation, source }) => {
                match source.downcast::<NvmeError>() {
                    Ok(error) => self.explain(*error),
                    Err(source) => weightstore::WeightError::Storage { operation, source }.into(),
                }
            }
            error => error,
        })
    }

    /// Opens the store for changes.
    pub(crate) fn open(&self) -> Result<NativeStore, CliError> {
        self.open_with(NativeConfig::default().with_create(false))
    }

    /// Opens the store without changing anything in it. It is locked all the same: what is read is
    /// not taken away meanwhile.
    pub(crate) fn open_for_reading(&self) -> Result<NativeStore, CliError> {
        let storage = StorageConfig::default()
            .with_create(false)
            .with_read_only(true);
        self.open_with(NativeConfig::default().with_storage(storage))
    }

    fn open_with(&self, config: NativeConfig) -> Result<NativeStore, CliError> {
        let volume = RealVolume::open(&self.store, VolumeOptions::default())
            .map_err(|error| self.explain(error))?;
        Ok(NativeStore::on_volume(Arc::new(volume), config)?)
    }

    /// A directory that can't be opened is not a store.
    fn explain(&self, error: NvmeError) -> CliError {
        let reason = match &error {
            NvmeError::FileNotFound { .. } => {
                "it does not exist; check --store, or add a model to make one"
            }
            NvmeError::FileExists { .. } => "it is not a directory; choose another --store",
            NvmeError::Io { source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
                "it is not a directory; choose another --store"
            }
            NvmeError::NotAStore { .. } if !self.store.exists() => {
                "it does not exist and can't be made; choose another --store"
            }
            _ => return error.into(),
        };
        NvmeError::NotAStore {
            path: shown(&self.store),
            reason: reason.to_owned(),
        }
        .into()
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
