//! The rungs of the ladder on real kernels, limits and file systems.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use core_view::contract::ErrorKind;
use tier_nvme::{
    EngineChoice, FileMode, NvmeStore, RealVolume, StorageConfig, Volume, VolumeOptions,
    VolumeReport,
};

use crate::supervisor::Supervisor;
use crate::{Outcome, apart, direct_here, exercise};

/// Memory that a user may lock on many distributions.
const MEMLOCK_BYTES: u64 = 8 << 20;
const NOBODY: u32 = 65_534;
const TMPFS_MAGIC: i64 = 0x0102_1994;

fn config() -> StorageConfig {
    StorageConfig::default().with_segment_bytes(1 << 20)
}

/// Puts, reopens and gets on a store in `directory`; returns what its statistics say of the volume.
fn keep(directory: &Path) -> Result<VolumeReport, Box<dyn std::error::Error + Send + Sync>> {
    let value = vec![7; 100_000];
    let store = NvmeStore::new(directory, config())?;
    for key in 0..20_u8 {
        store.write_aligned([key], &value)?;
    }
    store.close()?;
    let store = NvmeStore::new(directory, config())?;
    for key in 0..20_u8 {
        assert_eq!(store.read_direct([key])?.as_deref(), Some(&value[..]));
    }
    assert!(store.verify()?.is_whole());
    Ok(store.stats().volume)
}

#[test]
#[ignore = "another test starts it as another user"]
fn store_of_a_user_who_may_lock_little() -> Outcome {
    let limit = libc::rlimit {
        rlim_cur: MEMLOCK_BYTES,
        rlim_max: MEMLOCK_BYTES,
    };
    // SAFETY: the limit outlives the call, and is this process's own.
    let outcome = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
    if outcome != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let options = VolumeOptions::default().with_engine(EngineChoice::IoUring);
    let report = exercise(options)?;
    println!("@{}: {:?}", report.engine, report.engine_reason);
    // Kernels before 5.12 count rings as locked memory: then the pool has to have done it.
    assert_eq!(report.engine == "io_uring", report.engine_reason.is_none());
    let root = tempfile::tempdir()?;
    let kept = keep(root.path())?;
    println!("@{:?}", kept.mode);
    Ok(())
}

#[test]
fn eight_mebibytes_of_locked_memory_are_enough() -> Outcome {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "rungs::store_of_a_user_who_may_lock_little"]);
    command.args(["--ignored", "--nocapture"]);
    // SAFETY: the call takes nothing and always succeeds.
    let is_root = unsafe { libc::geteuid() } == 0;
    if is_root {
        command.uid(NOBODY).gid(NOBODY).env("TMPDIR", "/tmp");
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: another user can't run this test: {error}");
            return Ok(());
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .filter(|line| line.starts_with('@'))
        .for_each(|line| println!("{line}"));
    assert!(output.status.success() && text.contains('@'), "{output:?}");
    Ok(())
}

/// Where direct I/O means nothing, the report and the statistics say so, and everything works.
fn check_buffered(directory: &Path, reason_part: &str) -> Outcome {
    let volume = RealVolume::open(directory, VolumeOptions::default())?;
    let opened = volume.report();
    drop(volume);
    let kept = keep(directory)?;
    for report in [opened, kept] {
        let FileMode::Buffered { reason } = &report.mode else {
            return Err(format!("the volume claims to be direct: {report:?}").into());
        };
        println!("{reason}; {:?}", report.engine_reason);
        assert!(reason.contains(reason_part), "{reason}");
        assert_eq!(report.engine, "thread pool");
        assert!(report.engine_reason.is_some());
    }
    Ok(())
}

#[test]
fn memory_is_no_device() -> Outcome {
    let shared = Path::new("/dev/shm");
    let is_tmpfs = rustix::fs::statfs(shared).is_ok_and(|found| found.f_type == TMPFS_MAGIC);
    if !is_tmpfs {
        println!("skipped: there is no tmpfs in /dev/shm");
        return Ok(());
    }
    let root = tempfile::tempdir_in(shared)?;
    check_buffered(root.path(), "O_DIRECT")
}

#[test]
fn a_file_system_without_direct_files_is_used_all_the_same() -> Outcome {
    let root = tempfile::tempdir()?;
    // It has nothing but the page cache.
    let mounted = Command::new("mount")
        .args(["-t", "ramfs", "ramfs"])
        .arg(root.path())
        .output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: ramfs can't be mounted here: {mounted:?}");
        return Ok(());
    }
    let outcome = check_buffered(root.path(), "O_DIRECT");
    Command::new("umount").arg(root.path()).status()?;
    outcome
}

#[test]
fn a_kernel_that_knows_no_flags_makes_a_plain_ring() -> Outcome {
    if exercise(VolumeOptions::default())?.engine != "io_uring" {
        println!("skipped: there is no io_uring here");
        return Ok(());
    }
    apart(|| {
        // The flags are the third word of the parameters.
        let decide =
            |call: &crate::supervisor::Call| (call.word_behind(1, 2) != 0).then_some(libc::EINVAL);
        let supervisor = Supervisor::start(libc::SYS_io_uring_setup, decide)?;
        let report = exercise(VolumeOptions::default())?;
        assert_eq!((report.engine, report.engine_reason), ("io_uring", None));
        assert!(supervisor.refused() > 0);
        let root = tempfile::tempdir()?;
        assert_eq!(keep(root.path())?.engine, "io_uring");
        Ok(())
    })
}

#[test]
fn a_ring_that_breaks_fails_what_needs_it_and_loses_nothing() -> Outcome {
    if exercise(VolumeOptions::default())?.engine != "io_uring" || !direct_here() {
        println!("skipped: there is no io_uring here");
        return Ok(());
    }
    let root = tempfile::tempdir()?;
    let directory = root.path();
    apart(|| {
        let is_broken = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&is_broken);
        let decide = move |_: &crate::supervisor::Call| {
            broken.load(Ordering::Acquire).then_some(libc::EOWNERDEAD)
        };
        let supervisor = Supervisor::start(libc::SYS_io_uring_enter, decide)?;
        let store = NvmeStore::new(directory, config())?;
        store.write_aligned("before", &[1; 50_000])?;
        is_broken.store(true, Ordering::Release);
        for _ in 0..3 {
            let error = store.write_aligned("behind", &[2; 50_000]).err();
            let kind = error.ok_or("it was acknowledged without a ring")?.kind();
            assert!(
                matches!(kind, ErrorKind::Io | ErrorKind::Poisoned),
                "{kind:?}"
            );
        }
        // A value that is read by this thread itself needs no ring, and others fail or are right.
        if let Ok(value) = store.read_direct("before") {
            assert_eq!(value.as_deref(), Some(&[1; 50_000][..]));
        }
        assert!(store.close().is_err(), "it closed as if nothing had been");
        drop(store);
        assert!(supervisor.refused() > 0);
        Ok(())
    })?;
    // The broken ring keeps its files for good, and so the right to write them: this process reads a copy.
    let copy = tempfile::tempdir()?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        std::fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    let store = NvmeStore::new(copy.path(), config())?;
    let value = store.read_direct("before")?;
    assert_eq!(value.as_deref(), Some(&[1; 50_000][..]));
    assert!(store.verify()?.is_whole());
    Ok(())
}
