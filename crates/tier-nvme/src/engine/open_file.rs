//! An open file, as engines hold it.

use std::fs::File;

use crate::{Alignment, FileName};

/// An open file; it is closed when the last operation on it is done.
#[derive(Debug)]
pub(crate) struct OpenFile {
    /// The handle.
    pub(crate) file: File,
    /// The file's name in its volume.
    pub(crate) name: FileName,
    /// The path, for messages.
    pub(crate) path: String,
    /// What operations must be aligned to.
    pub(crate) alignment: Alignment,
    #[cfg(test)]
    pub(crate) interference: Option<std::sync::Arc<dyn super::interference::Interference>>,
}
