//! What an interrupted program takes away before it ends.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use tempfile::TempDir;

use crate::error::CliError;
use crate::report::Report;

/// Files and directories that must not outlive the program.
static SCRATCH: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// How often a directory is taken away again into which somebody still writes.
const REMOVALS_MAX: usize = 1000;

fn scratch() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    SCRATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file or directory that is removed if a signal ends the program while this lives. Its owner removes it
/// in every other case.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Takes note of `path`, which has to be absolute if the program changes its directory.
    pub(crate) fn watch(path: &Path) -> Self {
        static WATCHING: Once = Once::new();
        WATCHING.call_once(|| {
            // Without the watch everything works, and an interruption leaves the file.
            drop(start());
        });
        scratch().insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        scratch().remove(&self.0);
    }
}

/// A directory of a command's own, gone at its end however that comes.
#[derive(Debug)]
pub(crate) struct ScratchDirectory {
    directory: TempDir,
    _watched: Scratch,
}

impl ScratchDirectory {
    /// Makes it in `parent`.
    pub(crate) fn make(parent: &Path, prefix: &str) -> Result<Self, CliError> {
        let directory = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(parent)
            .map_err(|source| CliError::file("make a directory in", parent, source))?;
        Ok(Self {
            _watched: Scratch::watch(directory.path()),
            directory,
        })
    }

    /// Makes it for work that takes a while, and notes where that is done.
    pub(crate) fn announce(report: &Report, parent: &Path, prefix: &str) -> Result<Self, CliError> {
        let made = Self::make(parent, prefix)?;
        let path = made.path().display();
        report.note(&format!("working in {path}, which is removed at the end"));
        Ok(made)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it, and tells if that fails.
    pub(crate) fn remove(self) -> Result<(), CliError> {
        let path = self.path().to_owned();
        self.directory
            .close()
            .map_err(|source| CliError::file("remove", path, source))
    }
}

/// Starts the thread that waits for signals.
fn start() -> io::Result<()> {
    let ignored = ignored_signals();
    // What the parent had ignored, as `nohup` does, stays ignored.
    let wanted = [SIGHUP, SIGINT, SIGTERM]
        .into_iter()
        .filter(|signal| ignored & (1 << (signal - 1)) == 0);
    let mut signals = Signals::new(wanted)?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let paths = scratch();
                paths.iter().for_each(|path| remove(path));
                // Ends the program as the signal would have.
                drop(emulate_default_handler(signal));
            }
        })?;
    Ok(())
}

/// Lets a write beyond the limit of a file's size fail as others do, instead of ending the program without a word.
pub(crate) fn outlive_file_limits() {
    // Without the handler everything works but that.
    drop(signal_hook::flag::register(
        SIGXFSZ,
        Arc::new(AtomicBool::new(false)),
    ));
}

/// The signals that the program was started with orders to ignore, a bit each.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn remove(path: &Path) {
    for _ in 0..REMOVALS_MAX {
        let is_directory = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        let removed = if is_directory {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
        match removed {
            // Another thread made a file meanwhile.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            _ => return,
        }
    }
}
