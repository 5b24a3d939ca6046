//! Reads and writes of many sizes against a model in memory.

use std::ops::Range;
use std::sync::Arc;
use std::thread;

use core_view::BufferMut;
use core_view::contract::Transfer;

use super::pattern::{self, Sequence};
use super::{Checked, Factory, ensure};
use crate::{FileName, NvmeError, VolumeFile};

const REGION_BYTES: usize = 32 * 1024;
const REGIONS: usize = 64;
const ROUNDS: usize = 6;
const THREADS: usize = 3;

/// Checks that reads give what was written: many sizes, many operations outstanding at once from
/// several threads, writes of more buffers than the kernel takes in one call, empty ones, maps.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn check_transfers(factory: Factory<'_>) -> Checked {
    check_against_model(factory)?;
    check_from_threads(factory)?;
    check_vectored(factory)?;
    check_flood(factory)?;
    check_empty(factory)?;
    check_map(factory)
}

fn create(factory: Factory<'_>, len_bytes: usize) -> Result<Arc<dyn VolumeFile>, NvmeError> {
    factory()?.create(&FileName::new("data")?, len_bytes as u64)
}

/// A range inside `region`, as the alignment wants it.
fn range_in(region: usize, unit: usize, sequence: &mut Sequence) -> Range<usize> {
    let units = REGION_BYTES / unit;
    let start = sequence.below(units);
    let len = 1 + sequence.below(units - start);
    let base = region * REGION_BYTES;
    base + start * unit..base + (start + len) * unit
}

/// One operation in each region at once, over and over.
fn exercise(
    file: &dyn VolumeFile,
    regions: Range<usize>,
    model: &mut [u8],
    sequence: &mut Sequence,
) -> Checked {
    let unit = file.alignment().offset_bytes;
    let base_bytes = regions.start * REGION_BYTES;
    for round in 0..ROUNDS {
        let mut writes = Vec::new();
        for region in regions.clone() {
            let range = range_in(region, unit, sequence);
            let source = pattern::filled(file, range.len(), sequence)?;
            model[range.start - base_bytes..range.end - base_bytes].copy_from_slice(&source);
            writes.push(file.write(range.start as u64, source));
        }
        for write in writes {
            write.wait()?;
        }
        file.sync().wait()?;
        let mut reads: Vec<(Range<usize>, Transfer<BufferMut>)> = Vec::new();
        for region in regions.clone() {
            let range = range_in(region, unit, sequence);
            let target = pattern::buffer(file.alignment(), range.len())?;
            reads.push((range.clone(), file.read(range.start as u64, target)));
        }
        for (range, read) in reads {
            let target = read.wait()?;
            let expected = &model[range.start - base_bytes..range.end - base_bytes];
            ensure(*target == *expected, || {
                format!("round {round}: wrong bytes in {range:?}")
            })?;
        }
        let range = range_in(regions.start, unit, sequence);
        let target = pattern::buffer(file.alignment(), range.len())?;
        let target = file.read_blocking(range.start as u64, target)?;
        let expected = &model[range.start - base_bytes..range.end - base_bytes];
        ensure(*target == *expected, || {
            format!("round {round}: wrong bytes in {range:?} of a blocking read")
        })?;
    }
    Ok(())
}

fn check_against_model(factory: Factory<'_>) -> Checked {
    let file = create(factory, REGIONS * REGION_BYTES)?;
    let mut model = vec![0; REGIONS * REGION_BYTES];
    exercise(&*file, 0..REGIONS, &mut model, &mut Sequence::new(3))
}

fn check_from_threads(factory: Factory<'_>) -> Checked {
    let file = create(factory, REGIONS * REGION_BYTES)?;
    let share = REGIONS / THREADS;
    let run = |number: usize| {
        let mut model = vec![0; share * REGION_BYTES];
        let regions = number * share..(number + 1) * share;
        let mut sequence = Sequence::new(number as u64);
        exercise(&*file, regions, &mut model, &mut sequence).map_err(|error| error.to_string())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || run(number)))
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

/// More buffers than one call to the kernel takes (1024), of different lengths.
fn check_vectored(factory: Factory<'_>) -> Checked {
    const BUFFERS: usize = 2500;
    let file = create(factory, 8 << 20)?;
    let alignment = file.alignment();
    let unit = alignment.offset_bytes;
    let mut sequence = Sequence::new(4);
    let mut sources = Vec::new();
    let mut expected = Vec::new();
    for _ in 0..BUFFERS {
        let len_bytes = unit * (1 + sequence.below(3));
        let source = pattern::filled(&*file, len_bytes, &mut sequence)?;
        expected.extend_from_slice(&source);
        sources.push(source);
    }
    if expected.len() > (8 << 20) - unit {
        // Units this large fill the file with fewer buffers.
        expected.truncate((4 << 20) / unit * unit);
        sources = vec![pattern::buffer(alignment, expected.len())?];
        sources[0].copy_from_slice(&expected);
    }
    let addresses: Vec<_> = sources.iter().map(|source| source.as_ptr()).collect();
    let returned = file.write_vectored(unit as u64, sources).wait()?;
    let returned: Vec<_> = returned.iter().map(|source| source.as_ptr()).collect();
    ensure(returned == addresses, || {
        "a vectored write gives other buffers back, or in another order".into()
    })?;
    let target = pattern::buffer(alignment, expected.len())?;
    let target = file.read(unit as u64, target).wait()?;
    ensure(*target == *expected, || {
        "a vectored write wrote other bytes".into()
    })?;
    ensure(
        file.write_vectored(0, Vec::new()).wait()?.is_empty(),
        || "a write of no buffers gives some back".into(),
    )
}

/// More operations than any depth, submitted without waiting for one.
fn check_flood(factory: Factory<'_>) -> Checked {
    const OPERATIONS: usize = 3000;
    let file = create(factory, REGION_BYTES)?;
    let alignment = file.alignment();
    let unit = alignment.offset_bytes.max(16);
    let mut sequence = Sequence::new(5);
    let source = pattern::filled(&*file, REGION_BYTES, &mut sequence)?;
    let expected = source.to_vec();
    file.write(0, source).wait()?;
    let mut reads = Vec::new();
    for _ in 0..OPERATIONS {
        let start = sequence.below(REGION_BYTES / unit) * unit;
        let target = pattern::buffer(alignment, unit)?;
        reads.push((start, file.read(start as u64, target)));
    }
    for (start, read) in reads {
        let target = read.wait()?;
        ensure(*target == expected[start..start + unit], || {
            format!("wrong bytes at {start} of one of many reads")
        })?;
    }
    Ok(())
}

fn check_empty(factory: Factory<'_>) -> Checked {
    let file = create(factory, REGION_BYTES)?;
    let unit = file.alignment().offset_bytes as u64;
    let mut whole = pattern::buffer(file.alignment(), REGION_BYTES)?;
    let empty = whole.split_to(0);
    let empty = file.write(unit, empty).wait()?;
    let empty = file.read(unit, empty).wait()?;
    ensure(empty.is_empty(), || "an empty buffer grew".into())
}

/// A map of any range shows what was written, and outlives its file.
fn check_map(factory: Factory<'_>) -> Checked {
    let volume = factory()?;
    let name = FileName::new("data")?;
    let file = volume.create(&name, REGION_BYTES as u64)?;
    let source = pattern::filled(&*file, REGION_BYTES, &mut Sequence::new(7))?;
    let expected = source.to_vec();
    file.write(0, source).wait()?;
    file.sync().wait()?;
    let mut maps = Vec::new();
    for range in [0..REGION_BYTES, 0..1, 4095..4097, 777..20_001, 100..100] {
        // SAFETY: nobody writes to the file any more.
        let map = unsafe { file.map(range.start as u64, range.len()) }?;
        maps.push((range, map));
    }
    for (offset_bytes, len_bytes) in [
        (0, REGION_BYTES + 1),
        (REGION_BYTES as u64, 1),
        (u64::MAX, 2),
    ] {
        // SAFETY: as above.
        let error = unsafe { file.map(offset_bytes, len_bytes) }.err();
        ensure(matches!(error, Some(NvmeError::Invalid { .. })), || {
            format!("mapping {len_bytes} bytes at {offset_bytes} gives {error:?}")
        })?;
    }
    drop(file);
    volume.remove(&name)?;
    drop(volume);
    for (range, map) in maps {
        ensure(*map.as_slice() == expected[range.clone()], || {
            format!("a map of {range:?} shows other bytes")
        })?;
    }
    Ok(())
}
