//! The boundary to the library that reads and writes HDF5.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hdf5_pure::{FormatError, Source};

use crate::{ByteSource, WeightError};

/// Runs a call of the library.
///
/// It parses hostile bytes. It is written not to panic; should it do so all the same, the file is what is
/// wrong, not the program. It holds no state of ours while it runs.
pub(super) fn call<T>(
    file: &str,
    what: &str,
    run: impl FnOnce() -> Result<T, hdf5_pure::Error>,
) -> Result<T, WeightError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| WeightError::Hdf5 {
        file: file.to_owned(),
        what: what.to_owned(),
        source: Some(source),
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(Box::new(error))),
        Err(_) => Err(failed("the HDF5 library gave up on it".into())),
    }
}

/// A file that is HDF5, but not as it has to be.
pub(super) fn unusable(file: &str, what: impl Into<String>) -> WeightError {
    WeightError::Hdf5 {
        file: file.to_owned(),
        what: what.into(),
        source: None,
    }
}

/// What the library reads from.
pub(super) struct LibrarySource {
    pub(super) source: Arc<dyn ByteSource>,
    pub(super) len_bytes: u64,
}

impl Source for LibrarySource {
    fn len(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), FormatError> {
        self.source
            .read_exact_at(offset, target)
            .map_err(|error| FormatError::Source(error.to_string()))
    }
}
