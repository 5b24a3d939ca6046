//! Cores, memory, pages, devices.

use std::fs;
use std::path::{Path, PathBuf};

use core_alloc::{HugePageAllocator, Pages, StorageAllocator};
use serde::Serialize;

use super::Ability;
use crate::error::CliError;

/// Size of the storage that huge pages are tried with.
const HUGE_TRIAL_BYTES: usize = 4 << 20;

/// Names of the driver's library.
const CUDA_LIBRARIES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// Where the dynamic loader looks, besides `LD_LIBRARY_PATH`.
const LIBRARY_FOLDERS: [&str; 8] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/compat",
];

/// What the machine has.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) cores: usize,
    pub(super) memory_bytes: u64,
    pub(super) memory_available_bytes: u64,
    pub(super) kernel: String,
}

impl Machine {
    pub(super) fn look() -> Result<Self, CliError> {
        let path = "/proc/meminfo";
        let memory =
            fs::read_to_string(path).map_err(|source| CliError::file("read", path, source))?;
        let uname = rustix::system::uname();
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_field(&memory, "MemTotal"),
            memory_available_bytes: memory_field(&memory, "MemAvailable"),
            kernel: format!(
                "{} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy()
            ),
        })
    }
}

/// A field of the kernel's list, in bytes; 0 if it is not there.
fn memory_field(memory: &str, field: &str) -> u64 {
    memory
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == field)
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// Which rung of the ladder large memory gets.
pub(super) fn huge_pages() -> Ability {
    let allocator = HugePageAllocator::default();
    let (available, finding) = match allocator.allocate(HUGE_TRIAL_BYTES) {
        Ok(storage) => {
            let report = allocator.report();
            let refused = report.huge_refused.unwrap_or_default();
            match storage.pages() {
                Pages::Huge => (true, "reserved pages of 2 MiB".to_owned()),
                Pages::Transparent => (true, format!("transparent (reserved: {refused})")),
                _ => {
                    let transparent = report.transparent_refused.unwrap_or_default();
                    (
                        false,
                        format!("base pages (reserved: {refused}; transparent: {transparent})"),
                    )
                }
            }
        }
        Err(error) => (false, error.to_string()),
    };
    Ability {
        ability: "huge pages",
        available,
        finding,
        enables: "large buffers with fewer page faults",
    }
}

/// Whether a GPU's driver is installed; it is not loaded.
pub(super) fn gpu_driver() -> Ability {
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = std::env::split_paths(&named).chain(LIBRARY_FOLDERS.map(PathBuf::from));
    let found = find_library(folders);
    let version = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let version = version.as_deref().and_then(|text| text.lines().next());
    Ability {
        ability: "GPU driver",
        available: found.is_some() && version.is_some(),
        finding: match (found, version) {
            (Some(path), Some(version)) => format!("{} ({version})", path.display()),
            (Some(path), None) => format!("{} is there, its kernel module is not", path.display()),
            (None, Some(version)) => format!("no {} for {version}", CUDA_LIBRARIES[0]),
            (None, None) => format!("no {} was found", CUDA_LIBRARIES[0]),
        },
        enables: "device memory as a tier",
    }
}

fn find_library(folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let named = |folder: PathBuf| CUDA_LIBRARIES.map(|name| folder.join(name));
    folders
        .filter(|folder| folder != Path::new(""))
        .flat_map(named)
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_bytes() {
        let memory = "MemTotal:       2048 kB\nMemAvailable:    1 kB\n";
        assert_eq!(memory_field(memory, "MemTotal"), 2 << 20);
        assert_eq!(memory_field(memory, "MemAvailable"), 1024);
        assert_eq!(memory_field(memory, "MemFree"), 0);
    }

    #[test]
    fn the_first_folder_with_the_library_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libcuda.so.1");
        let folders = || {
            [
                PathBuf::new(),
                PathBuf::from("/nowhere"),
                folder.path().to_owned(),
            ]
        };
        assert_eq!(find_library(folders().into_iter()), None);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(find_library(folders().into_iter()), Some(path));
    }
}
