//! Reads that one thread starts and collects.

use std::collections::BTreeMap;

use core_view::contract::ErrorKind;

use super::pattern::{self, Sequence};
use super::{Checked, Factory, ensure};
use crate::{FileName, ReadQueue};

const FILES: usize = 3;
const UNITS: usize = 64;
const READS: u64 = 400;

/// Checks that a queue gives each read's outcome once, with its own bytes, whatever file it is of; that a
/// read that can't be done gives its buffer back; and that a queue may be dropped with reads in it.
///
/// # Errors
/// The first thing that is not as it must be.
pub fn check_queues(factory: Factory<'_>) -> Checked {
    let volume = factory()?;
    let mut sequence = Sequence::new(11);
    let mut files = Vec::new();
    for number in 0..FILES {
        let name = FileName::new(format!("queued-{number}"))?;
        let unit = volume.report().alignment.offset_bytes;
        let file = volume.create(&name, (UNITS * unit) as u64)?;
        let source = pattern::filled(&*file, UNITS * unit, &mut sequence)?;
        files.push((file.write(0, source).wait()?, file));
    }
    for round in 0..3 {
        let mut queue = ReadQueue::default();
        let mut expected = BTreeMap::new();
        for tag in 0..READS {
            let (bytes, file) = &files[sequence.below(FILES)];
            let unit = file.alignment().offset_bytes;
            let from = sequence.below(UNITS);
            let range = from * unit..(from + 1 + sequence.below(UNITS - from)) * unit;
            let target = pattern::buffer(file.alignment(), range.len())?;
            queue.push(tag, &**file, range.start as u64, target);
            expected.insert(tag, &bytes[range]);
            if tag % 3 == 2 && round != 1 {
                take_one(&mut queue, &mut expected)?;
            }
        }
        let (_, file) = &files[0];
        let target = pattern::buffer(file.alignment(), file.alignment().offset_bytes)?;
        queue.push(u64::MAX, &**file, 1, target);
        if round == 2 {
            // Its reads are the queue's business now.
            drop(queue);
            continue;
        }
        while !expected.is_empty() {
            take_one(&mut queue, &mut expected)?;
        }
        while queue.next().is_some() {}
    }
    Ok(())
}

fn take_one(queue: &mut ReadQueue, expected: &mut BTreeMap<u64, &[u8]>) -> Checked {
    let Some((tag, outcome)) = queue.next() else {
        return Err("a read has no outcome".into());
    };
    if tag == u64::MAX {
        let failure = outcome.err().ok_or("a misaligned read succeeded")?;
        ensure(failure.kind() == ErrorKind::InvalidInput, || {
            format!("a misaligned read fails as {failure}")
        })?;
        return ensure(failure.into_parts().1.len() == 1, || {
            "a misaligned read keeps its buffer".into()
        });
    }
    let bytes = expected.remove(&tag);
    let bytes = bytes.ok_or_else(|| format!("read {tag} has two outcomes"))?;
    ensure(*outcome? == *bytes, || {
        format!("read {tag} has another's bytes")
    })
}
