//! Creating, opening, renaming, removing, listing, locking.

use super::pattern::{self, Sequence};
use super::{Checked, Factory, ensure};
use crate::{FileName, NvmeError, Volume};

const LEN_BYTES: u64 = 64 * 1024;

/// Checks what a volume does with names: creation with reserved zeros, opening, replacement by rename,
/// removal under a reader, listing, exclusion by lock, and the errors of each.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn check_names(factory: Factory<'_>) -> Checked {
    check_create(&*factory()?)?;
    check_rename(&*factory()?)?;
    check_remove(&*factory()?)?;
    check_lock(&*factory()?)?;
    check_report(&*factory()?)
}

fn name(name: &str) -> Result<FileName, NvmeError> {
    FileName::new(name)
}

fn names_of(volume: &dyn Volume) -> Result<Vec<String>, NvmeError> {
    Ok(volume.list()?.iter().map(ToString::to_string).collect())
}

fn check_create(volume: &dyn Volume) -> Checked {
    ensure(volume.is_writable(), || "the volume is read-only".into())?;
    ensure(volume.list()?.is_empty(), || {
        "a new volume lists files".into()
    })?;
    let file = volume.create(&name("a")?, LEN_BYTES)?;
    ensure(file.name() == &name("a")?, || {
        format!("the file calls itself {}", file.name())
    })?;
    ensure(file.len_bytes()? == LEN_BYTES, || {
        "a new file has another length than asked for".into()
    })?;
    let target = pattern::buffer(file.alignment(), LEN_BYTES as usize)?;
    let target = file.read(0, target).wait()?;
    ensure(target.iter().all(|&byte| byte == 0), || {
        "a new file is not all zero".into()
    })?;
    let error = volume.create(&name("a")?, LEN_BYTES).err();
    ensure(matches!(error, Some(NvmeError::FileExists { .. })), || {
        format!("creating a file twice gives {error:?}")
    })?;
    ensure(file.len_bytes()? == LEN_BYTES, || {
        "the refused creation changed the file".into()
    })?;
    let error = volume.open(&name("b")?).err();
    ensure(
        matches!(error, Some(NvmeError::FileNotFound { .. })),
        || format!("opening what is not there gives {error:?}"),
    )?;
    volume.sync_directory()?;
    for other in ["c.2", "B_1", "b-0"] {
        volume.create(&name(other)?, 0)?;
    }
    let names = names_of(volume)?;
    ensure(names == ["B_1", "a", "b-0", "c.2"], || {
        format!("listed {names:?}")
    })
}

fn check_rename(volume: &dyn Volume) -> Checked {
    let (old, new) = (name("old")?, name("new")?);
    let mut sequence = Sequence::new(1);
    let first = volume.create(&old, LEN_BYTES)?;
    let second = volume.create(&new, LEN_BYTES)?;
    let alignment = first.alignment();
    let written = pattern::filled(&*first, LEN_BYTES as usize, &mut sequence)?;
    let expected = written.to_vec();
    first.write(0, written).wait()?;
    volume.rename(&old, &new)?;
    let names = names_of(volume)?;
    ensure(names == ["new"], || {
        format!("listed {names:?} after a rename")
    })?;
    let reopened = volume.open(&new)?;
    let target = pattern::buffer(alignment, LEN_BYTES as usize)?;
    let target = reopened.read(0, target).wait()?;
    ensure(*target == *expected, || {
        "the new name does not lead to the renamed file".into()
    })?;
    let target = second.read(0, target).wait()?;
    ensure(target.iter().all(|&byte| byte == 0), || {
        "a handle of the replaced file leads elsewhere".into()
    })?;
    let error = volume.rename(&old, &new).err();
    ensure(
        matches!(error, Some(NvmeError::FileNotFound { .. })),
        || format!("renaming what is not there gives {error:?}"),
    )?;
    volume.rename(&new, &new)?;
    ensure(names_of(volume)? == ["new"], || {
        "renaming to the same name loses the file".into()
    })
}

fn check_remove(volume: &dyn Volume) -> Checked {
    let only = name("only")?;
    let mut sequence = Sequence::new(2);
    let file = volume.create(&only, LEN_BYTES)?;
    let written = pattern::filled(&*file, LEN_BYTES as usize, &mut sequence)?;
    let expected = written.to_vec();
    let buffer = file.write(0, written).wait()?;
    volume.remove(&only)?;
    ensure(volume.list()?.is_empty(), || {
        "a removed file is listed".into()
    })?;
    let error = volume.open(&only).err();
    ensure(
        matches!(error, Some(NvmeError::FileNotFound { .. })),
        || format!("opening a removed file gives {error:?}"),
    )?;
    let error = volume.remove(&only).err();
    ensure(
        matches!(error, Some(NvmeError::FileNotFound { .. })),
        || format!("removing what is not there gives {error:?}"),
    )?;
    let read = file.read(0, buffer).wait()?;
    ensure(*read == *expected, || {
        "who had the file open can't read it any more".into()
    })?;
    let again = volume.create(&only, LEN_BYTES)?;
    let read = again.read(0, read).wait()?;
    ensure(read.iter().all(|&byte| byte == 0), || {
        "a file created after a removal has old bytes".into()
    })
}

fn check_lock(volume: &dyn Volume) -> Checked {
    let lock = volume.lock()?;
    let error = volume.lock().err();
    ensure(matches!(error, Some(NvmeError::Locked { .. })), || {
        format!("locking twice gives {error:?}")
    })?;
    ensure(volume.list()?.is_empty(), || "the lock is listed".into())?;
    let error = volume.lock_shared().err();
    ensure(matches!(error, Some(NvmeError::Locked { .. })), || {
        format!("locking for reading beside a lock gives {error:?}")
    })?;
    drop(lock);
    drop(volume.lock()?);
    let readers = [volume.lock_shared()?, volume.lock_shared()?];
    let error = volume.lock().err();
    ensure(matches!(error, Some(NvmeError::Locked { .. })), || {
        format!("locking beside readers gives {error:?}")
    })?;
    let [first, second] = readers;
    drop(first);
    ensure(volume.lock().is_err(), || {
        "the lock of one reader ended with another's".into()
    })?;
    drop(second);
    drop(volume.lock()?);
    Ok(())
}

fn check_report(volume: &dyn Volume) -> Checked {
    let report = volume.report();
    let alignment = volume.create(&name("file")?, LEN_BYTES)?.alignment();
    ensure(report.alignment == alignment, || {
        format!(
            "reported {:?}, the file has {alignment:?}",
            report.alignment
        )
    })?;
    ensure(
        alignment.memory_bytes.is_power_of_two() && alignment.offset_bytes.is_power_of_two(),
        || format!("{alignment:?} are no powers of two"),
    )?;
    ensure(
        !report.location.is_empty() && !report.engine.is_empty(),
        || format!("the report is incomplete: {report:?}"),
    )
}
