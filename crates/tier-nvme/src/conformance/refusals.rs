//! What files refuse, and that buffers come back from it.

use core_view::BufferMut;
use core_view::contract::{ErrorKind, Failure};

use super::pattern::{self, Sequence};
use super::{Checked, Factory, ensure};
use crate::{FileName, VolumeFile};

const LEN_BYTES: usize = 64 * 1024;

/// Checks that what can't be done is refused with the right kind of error and with its buffers, and
/// that the file goes on working.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn check_refusals(factory: Factory<'_>) -> Checked {
    let volume = factory()?;
    let file = volume.create(&FileName::new("data")?, LEN_BYTES as u64)?;
    let mut sequence = Sequence::new(6);
    let source = pattern::filled(&*file, LEN_BYTES, &mut sequence)?;
    let expected = source.to_vec();
    let buffer = file.write(0, source).wait()?;
    check_end(&*file)?;
    check_misaligned(&*file)?;
    check_range(&*file)?;
    let target = file.read(0, buffer).wait()?;
    ensure(*target == *expected, || {
        "a refused operation changed the file".into()
    })
}

/// The failure that is expected of `kind`, with exactly the one buffer at `address`.
fn ensure_refused(
    what: &str,
    outcome: Result<BufferMut, Failure>,
    kind: Option<ErrorKind>,
    address: *const u8,
) -> Result<BufferMut, Box<dyn std::error::Error>> {
    let failure = match outcome {
        Ok(_) => return Err(format!("{what} succeeds").into()),
        Err(failure) => failure,
    };
    let (error, buffers) = failure.into_parts();
    ensure(kind.is_none_or(|kind| kind == error.kind()), || {
        format!("{what} gives {error}")
    })?;
    let mut buffers = buffers.reclaim();
    ensure(buffers.len() == 1, || {
        format!("{what} gives {} buffers back", buffers.len())
    })?;
    let buffer = buffers.pop().ok_or("no buffer")?;
    ensure(buffer.as_ptr() == address, || {
        format!("{what} gives another buffer back")
    })?;
    Ok(buffer)
}

fn check_end(file: &dyn VolumeFile) -> Checked {
    let unit = file.alignment().offset_bytes;
    let buffer = pattern::buffer(file.alignment(), 2 * unit)?;
    let address = buffer.as_ptr();
    let kind = Some(ErrorKind::Io);
    let across = (LEN_BYTES - unit) as u64;
    let outcome = file.read(across, buffer).wait();
    let buffer = ensure_refused("a read across the end", outcome, kind, address)?;
    let outcome = file.read(LEN_BYTES as u64, buffer).wait();
    let buffer = ensure_refused("a read at the end", outcome, kind, address)?;
    let outcome = file.read_blocking(across, buffer);
    let buffer = ensure_refused("a blocking read across the end", outcome, kind, address)?;
    let outcome = file.read(4 * LEN_BYTES as u64, buffer).wait();
    ensure_refused("a read behind the end", outcome, kind, address).map(drop)
}

fn check_misaligned(file: &dyn VolumeFile) -> Checked {
    let alignment = file.alignment();
    let unit = alignment.offset_bytes;
    let kind = Some(ErrorKind::InvalidInput);
    if unit > 1 {
        let buffer = pattern::buffer(alignment, unit)?;
        let address = buffer.as_ptr();
        let outcome = file.read(1, buffer).wait();
        let buffer = ensure_refused("a read at a misaligned offset", outcome, kind, address)?;
        let outcome = file.write(unit as u64 / 2, buffer).wait();
        let buffer = ensure_refused("a write at a misaligned offset", outcome, kind, address)?;
        let outcome = file.read_blocking(1, buffer);
        ensure_refused("a blocking misaligned read", outcome, kind, address)?;
        let buffer = pattern::buffer(alignment, unit + 1)?;
        let address = buffer.as_ptr();
        let outcome = file.write(0, buffer).wait();
        let buffer = ensure_refused("a write of a misaligned length", outcome, kind, address)?;
        let whole = pattern::buffer(alignment, unit)?;
        let addresses = [whole.as_ptr(), address];
        let failure = match file.write_vectored(0, vec![whole, buffer]).wait() {
            Ok(_) => return Err("a vectored write of a misaligned length succeeds".into()),
            Err(failure) => failure,
        };
        ensure(failure.kind() == ErrorKind::InvalidInput, || {
            format!("a vectored write of a misaligned length gives {failure}")
        })?;
        let returned = failure.into_parts().1.reclaim();
        let returned: Vec<_> = returned.iter().map(|buffer| buffer.as_ptr()).collect();
        ensure(returned == addresses, || {
            "a refused vectored write keeps buffers, or changes their order".into()
        })?;
    }
    if alignment.memory_bytes > 1 {
        let mut buffer = pattern::buffer(alignment, 2 * unit.max(alignment.memory_bytes))?;
        let mut shifted = buffer.split_off(1);
        drop(shifted.split_off(unit));
        let address = shifted.as_ptr();
        let outcome = file.read(0, shifted).wait();
        let shifted = ensure_refused("a read to a misaligned address", outcome, kind, address)?;
        let outcome = file.write(0, shifted).wait();
        ensure_refused("a write from a misaligned address", outcome, kind, address)?;
    }
    Ok(())
}

fn check_range(file: &dyn VolumeFile) -> Checked {
    let unit = file.alignment().offset_bytes;
    let last_unit = u64::MAX - (u64::MAX % unit as u64);
    for offset_bytes in [last_unit, last_unit - unit as u64, 1 << 63] {
        let buffer = pattern::buffer(file.alignment(), 2 * unit)?;
        let address = buffer.as_ptr();
        let outcome = file.read(offset_bytes, buffer).wait();
        let buffer = ensure_refused("a read out of range", outcome, None, address)?;
        let outcome = file.write(offset_bytes, buffer).wait();
        ensure_refused("a write out of range", outcome, None, address)?;
    }
    Ok(())
}
