//! What the volume falls back to where the kernel refuses something, and that it says so.
//!
//! The refusals are filters on the system calls of one thread and of those it starts, so that each test
//! has its own.

#![cfg(all(target_os = "linux", target_arch = "x86_64", feature = "io-uring"))]

mod filter;
mod log;
mod rungs;
mod supervisor;

use std::error::Error;
use std::sync::Arc;
use std::thread;

use core_view::BufferMut;
use tier_nvme::{
    EngineChoice, FileMode, FileName, NvmeError, RealVolume, Volume, VolumeOptions, VolumeReport,
};

use filter::{drop_privileges, refuse};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Runs `test` on a thread of its own, which may spoil itself.
fn apart(test: impl FnOnce() -> Outcome + Send) -> Outcome {
    thread::scope(|scope| {
        scope
            .spawn(test)
            .join()
            .map_err(|_| "the thread panicked")?
    })
}

/// Writes, syncs and reads back on the volume, and returns its report.
fn exercise(options: VolumeOptions) -> Result<VolumeReport, Box<dyn Error + Send + Sync>> {
    let root = tempfile::tempdir()?;
    let volume = RealVolume::open(root.path(), options)?;
    let file = volume.create(&FileName::new("file")?, 1 << 20)?;
    let mut source = BufferMut::zeroed(1 << 20, 4096)?;
    source.fill(9);
    let buffer = file.write(0, source).wait()?;
    file.sync().wait()?;
    let target = file.read(0, buffer).wait()?;
    assert!(target.iter().all(|&byte| byte == 9));
    Ok(volume.report())
}

fn direct_here() -> bool {
    exercise(VolumeOptions::default()).is_ok_and(|report| report.mode == FileMode::Direct)
}

#[test]
fn a_refused_ring_is_replaced_by_the_pool() -> Outcome {
    for (code, word) in [
        (libc::EPERM, "seccomp"),
        (libc::ENOSYS, "not in this kernel"),
        (libc::ENOMEM, "RLIMIT_MEMLOCK"),
        (libc::EMFILE, "too many open files"),
    ] {
        apart(|| {
            refuse(libc::SYS_io_uring_setup, code, None)?;
            let options = VolumeOptions::default().with_engine(EngineChoice::IoUring);
            let report = exercise(options)?;
            let reason = report.engine_reason.ok_or("no reason is given")?;
            println!("{reason}");
            assert_eq!(report.engine, "thread pool");
            assert!(reason.contains(word), "{reason}");
            Ok(())
        })?;
        if direct_here() {
            apart(|| {
                refuse(libc::SYS_io_uring_setup, code, None)?;
                let report = exercise(VolumeOptions::default())?;
                assert_eq!(report.mode, FileMode::Direct);
                assert_eq!(report.engine, "thread pool");
                assert!(report.engine_reason.is_some());
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn a_ring_of_unknown_abilities_is_not_used() -> Outcome {
    apart(|| {
        // The kernel will not say what its ring can do.
        refuse(libc::SYS_io_uring_register, libc::EINVAL, None)?;
        let report = exercise(VolumeOptions::default().with_engine(EngineChoice::IoUring))?;
        assert_eq!(report.engine, "thread pool");
        assert!(report.engine_reason.is_some());
        Ok(())
    })
}

#[test]
fn refused_direct_opens_lead_to_buffered_files() -> Outcome {
    apart(|| {
        let flags = Some((2, libc::O_DIRECT as u32));
        refuse(libc::SYS_openat, libc::EINVAL, flags)?;
        let report = exercise(VolumeOptions::default())?;
        let FileMode::Buffered { reason } = report.mode else {
            return Err("the volume claims to be direct".into());
        };
        assert!(reason.contains("O_DIRECT"), "{reason}");
        assert_eq!(report.engine, "thread pool");
        assert_eq!(report.alignment.offset_bytes, 1);
        Ok(())
    })
}

/// Without `statx`, alignments are found by trying.
#[test]
fn alignment_is_tried_where_the_kernel_does_not_say() -> Outcome {
    if !direct_here() {
        println!("skipped: no direct I/O here");
        return Ok(());
    }
    apart(|| {
        refuse(libc::SYS_statx, libc::ENOSYS, None)?;
        let report = exercise(VolumeOptions::default())?;
        assert_eq!(report.mode, FileMode::Direct);
        assert!([512, 4096, 65_536].contains(&report.alignment.offset_bytes));
        Ok(())
    })
}

#[test]
fn space_is_written_where_it_cannot_be_reserved() -> Outcome {
    apart(|| {
        refuse(libc::SYS_fallocate, libc::EOPNOTSUPP, None)?;
        exercise(VolumeOptions::default()).map(drop)
    })
}

#[test]
fn a_full_disk_leaves_nothing_behind() -> Outcome {
    apart(|| {
        refuse(libc::SYS_fallocate, libc::ENOSPC, None)?;
        let root = tempfile::tempdir()?;
        let volume = RealVolume::open(root.path(), VolumeOptions::default())?;
        match volume.create(&FileName::new("file")?, 1 << 20) {
            Err(NvmeError::NoSpace {
                requested_bytes, ..
            }) => assert_eq!(requested_bytes, 1 << 20),
            other => return Err(format!("unexpected: {other:?}").into()),
        }
        assert!(volume.list()?.is_empty());
        assert_eq!(std::fs::read_dir(root.path())?.count(), 0);
        Ok(())
    })
}

#[test]
fn a_disk_that_cannot_grow_is_opened_for_what_it_has() -> Outcome {
    let root = tempfile::tempdir()?;
    std::fs::write(root.path().join("file"), vec![3; 8192])?;
    apart(|| {
        let flags = Some((2, libc::O_CREAT as u32));
        refuse(libc::SYS_openat, libc::ENOSPC, flags)?;
        let volume = RealVolume::open(root.path(), VolumeOptions::default())?;
        assert!(volume.is_writable());
        let file = volume.open(&FileName::new("file")?)?;
        let target = file.read(0, BufferMut::zeroed(8192, 4096)?).wait()?;
        assert!(target.iter().all(|&byte| byte == 3));
        drop(file);
        volume.remove(&FileName::new("file")?)?;
        Ok(())
    })
}

#[test]
fn a_directory_that_may_not_be_written_is_opened_for_reading() -> Outcome {
    use std::os::unix::fs::PermissionsExt;

    let root = tempfile::tempdir()?;
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755))?;
    let path = root.path().join("file");
    std::fs::write(&path, vec![3; 8192])?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644))?;
    if drop_privileges_is_refused() {
        println!("skipped: the test does not run as root");
        return Ok(());
    }
    apart(|| {
        drop_privileges()?;
        let volume = RealVolume::open(root.path(), VolumeOptions::default())?;
        check_read_only(&volume)
    })
}

#[test]
fn a_volume_opened_for_reading_only_changes_nothing() -> Outcome {
    let root = tempfile::tempdir()?;
    std::fs::write(root.path().join("file"), vec![3; 8192])?;
    let options = VolumeOptions::default().with_read_only(true);
    let volume = RealVolume::open(root.path(), options)?;
    check_read_only(&volume)
}

fn drop_privileges_is_refused() -> bool {
    thread::spawn(drop_privileges)
        .join()
        .map_or(true, |outcome| outcome.is_err())
}

fn check_read_only(volume: &RealVolume) -> Outcome {
    assert!(!volume.is_writable());
    let name = FileName::new("file")?;
    let other = FileName::new("other")?;
    let refused = [
        volume.create(&other, 1).err(),
        volume.rename(&name, &other).err(),
        volume.remove(&name).err(),
        volume.lock().err(),
    ];
    for error in refused {
        assert!(
            matches!(error, Some(NvmeError::ReadOnly { .. })),
            "{error:?}"
        );
    }
    let file = volume.open(&name)?;
    let target = file.read(0, BufferMut::zeroed(8192, 4096)?).wait()?;
    assert!(target.iter().all(|&byte| byte == 3));
    let failure = file.write(0, target).wait().err().ok_or("it was written")?;
    assert_eq!(failure.into_parts().1.len(), 1);
    Ok(())
}

#[test]
fn the_lock_names_its_holder() -> Outcome {
    let root = tempfile::tempdir()?;
    let open = || RealVolume::open(root.path(), VolumeOptions::default());
    let (first, second) = (Arc::new(open()?), open()?);
    let lock = first.lock()?;
    match second.lock() {
        Err(NvmeError::Locked { holder_pid, .. }) => {
            assert_eq!(holder_pid, Some(std::process::id()));
        }
        other => return Err(format!("unexpected: {other:?}").into()),
    }
    drop(first);
    assert!(second.lock().is_err(), "the lock ended with its volume");
    drop(lock);
    second.lock()?;
    Ok(())
}

#[test]
fn odd_entries_are_neither_listed_nor_opened() -> Outcome {
    let root = tempfile::tempdir()?;
    std::fs::create_dir(root.path().join("directory"))?;
    std::fs::write(root.path().join("with space"), b"x")?;
    std::fs::write(root.path().join(".hidden"), b"x")?;
    std::fs::write(root.path().join("file"), b"x")?;
    std::os::unix::fs::symlink(root.path().join("file"), root.path().join("link"))?;
    std::os::unix::fs::symlink("nowhere", root.path().join("dangling"))?;
    let volume = RealVolume::open(root.path(), VolumeOptions::default())?;
    let names: Vec<_> = volume.list()?.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["file", "link"]);
    let error = volume.open(&FileName::new("directory")?).err();
    assert!(
        matches!(error, Some(NvmeError::Invalid { .. })),
        "{error:?}"
    );
    let error = volume.create(&FileName::new("directory")?, 1).err();
    assert!(
        matches!(error, Some(NvmeError::FileExists { .. })),
        "{error:?}"
    );
    Ok(())
}

#[test]
fn what_is_no_directory_is_said_so() -> Outcome {
    let root = tempfile::tempdir()?;
    let file = root.path().join("file");
    std::fs::write(&file, b"x")?;
    let error = RealVolume::open(&file, VolumeOptions::default()).err();
    assert!(matches!(error, Some(NvmeError::Io { .. })), "{error:?}");
    let none = root.path().join("none");
    let error = RealVolume::open(&none, VolumeOptions::default()).err();
    assert!(
        matches!(error, Some(NvmeError::FileNotFound { .. })),
        "{error:?}"
    );
    let made = RealVolume::create(none.join("below"), VolumeOptions::default())?;
    assert!(made.is_writable() && made.available_bytes() > Some(0));
    Ok(())
}
