//! The conformance suite over the real volume, with each engine and each mode.

#![cfg(all(target_os = "linux", feature = "testing"))]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tier_nvme::conformance::{self, Checked};
use tier_nvme::{EngineChoice, FileMode, RealVolume, Volume, VolumeOptions};

/// Runs every check on volumes below `root`, and `look` on the first of them.
fn check_below(root: &Path, options: &VolumeOptions, look: impl Fn(&RealVolume)) -> Checked {
    let next = AtomicU32::new(0);
    conformance::check_all(&|| {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("volume-{number}"));
        let volume = RealVolume::create(path, options.clone())?;
        if number == 0 {
            look(&volume);
        }
        Ok(Arc::new(volume))
    })
}

fn check(options: &VolumeOptions, engine: &'static str, direct: bool) -> Checked {
    let root = tempfile::tempdir()?;
    check_below(root.path(), options, |volume| {
        let report = volume.report();
        println!("{report:?}");
        if report.engine != engine {
            println!("the kernel refuses {engine}; checked what there is instead");
        }
        assert!(direct || report.mode != FileMode::Direct);
    })
}

fn options(engine: EngineChoice, direct_io: bool) -> VolumeOptions {
    VolumeOptions::default()
        .with_engine(engine)
        .with_direct_io(direct_io)
}

#[test]
fn ring_direct() -> Checked {
    check(&options(EngineChoice::IoUring, true), "io_uring", true)
}

#[test]
fn ring_buffered() -> Checked {
    check(&options(EngineChoice::IoUring, false), "io_uring", false)
}

#[test]
fn pool_direct() -> Checked {
    check(
        &options(EngineChoice::ThreadPool, true),
        "thread pool",
        true,
    )
}

#[test]
fn pool_buffered() -> Checked {
    let options = options(EngineChoice::ThreadPool, false);
    check(&options, "thread pool", false)
}

#[test]
fn several_rings_at_a_depth_of_three() -> Checked {
    let options = options(EngineChoice::IoUring, true)
        .with_io_depth(3)
        .with_threads(2);
    check(&options, "io_uring", true)
}

#[test]
fn one_thread_at_a_depth_of_one() -> Checked {
    let options = options(EngineChoice::ThreadPool, false)
        .with_io_depth(1)
        .with_threads(1);
    check(&options, "thread pool", false)
}

#[test]
fn as_the_environment_says() -> Checked {
    check(&VolumeOptions::from_test_environment()?, "io_uring", true)
}

/// A file system in memory takes O_DIRECT and does not act on it.
#[test]
fn memory_is_reported_as_buffered() -> Checked {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() {
        println!("skipped: there is no /dev/shm");
        return Ok(());
    }
    let root = tempfile::tempdir_in(memory)?;
    check_below(root.path(), &VolumeOptions::default(), |volume| {
        let FileMode::Buffered { reason } = volume.report().mode else {
            unreachable!("a file system in memory has no direct I/O");
        };
        println!("{reason}");
    })
}
