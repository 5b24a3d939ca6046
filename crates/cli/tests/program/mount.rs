//! File systems of a test's own.

use std::path::PathBuf;
use std::process::Command;

use tempfile::{TempDir, tempdir};

/// A mount of the test's own, taken down at the end.
pub(crate) struct Mount(TempDir);

impl Mount {
    /// Mounts with these arguments and the directory, or tells why not.
    pub(crate) fn new(arguments: &[&str]) -> Option<Self> {
        let folder = tempdir().unwrap();
        let output = Command::new("mount")
            .args(arguments)
            .arg(folder.path())
            .output();
        match output {
            Ok(output) if output.status.success() => Some(Self(folder)),
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr).into_owned();
                println!(
                    "skipped: a file system can't be mounted here: {}",
                    reason.trim()
                );
                None
            }
            Err(error) => {
                println!("skipped: mount can't be run: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.0.path()).status());
    }
}
