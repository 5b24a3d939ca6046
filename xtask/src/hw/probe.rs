//! What this machine has.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::{Value, json};

/// Whether a configuration can run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Availability {
    Present,
    /// And why.
    Missing(String),
}

impl Availability {
    pub(super) fn missing(why: impl Into<String>) -> Self {
        Self::Missing(why.into())
    }
}

/// Whether the kernel has io_uring and lets processes use it.
pub(super) fn io_uring() -> Availability {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    io_uring_of(release.trim(), disabled.as_deref().map(str::trim))
}

fn io_uring_of(release: &str, disabled: Option<&str>) -> Availability {
    let mut numbers = release.split('.').map(|part| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap_or(0)
    });
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match disabled {
        _ if version < (5, 6) => {
            Availability::missing(format!("kernel {release} is older than 5.6"))
        }
        Some("0") | None => Availability::Present,
        Some(level) => Availability::missing(format!("kernel.io_uring_disabled is {level}")),
    }
}

/// Whether the file system at `directory` takes an aligned direct write.
pub(super) fn direct_io(directory: &Path) -> Availability {
    #[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
    const O_DIRECT: i32 = 0o200_000;
    #[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
    const O_DIRECT: i32 = 0o40_000;
    const BLOCK: usize = 4096;

    let path = directory.join(format!("stepwell-hw-probe-{}", std::process::id()));
    let buffer = vec![0_u8; 2 * BLOCK];
    let start = buffer.as_ptr().align_offset(BLOCK);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(O_DIRECT)
        .open(&path)
        .and_then(|mut file| file.write_all(&buffer[start..start + BLOCK]));
    // Absent if the open itself was refused.
    let _ = std::fs::remove_file(&path);
    match written {
        Ok(()) => Availability::Present,
        Err(error) => Availability::missing(format!(
            "{} takes no aligned direct write: {error}",
            directory.display()
        )),
    }
}

/// What a reader of the matrix must know of the machine.
pub(super) fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name.to_owned());
    let memory_kib: Option<u64> = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    json!({
        "architecture": std::env::consts::ARCH,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "processor": processor,
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "memory_bytes": memory_kib.map(|kib| kib * 1024),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_uring_needs_a_new_kernel_that_permits_it() {
        assert_eq!(io_uring_of("6.18.1-a", Some("0")), Availability::Present);
        assert_eq!(io_uring_of("5.15.0", None), Availability::Present);
        for (release, disabled) in [("5.4.0", None), ("6.1.0", Some("2")), ("", None)] {
            assert!(
                matches!(io_uring_of(release, disabled), Availability::Missing(_)),
                "{release}"
            );
        }
    }

    #[test]
    fn a_probe_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let _ = direct_io(directory.path());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let missing = direct_io(&directory.path().join("absent"));
        assert!(matches!(missing, Availability::Missing(_)));
    }
}
