//! Writes batches whose contents follow from their numbers, notes each that was acknowledged, and checks a
//! store against the notes: nothing acknowledged is missing, nothing is half there.
//!
//! ```text
//! acknowledged write DIR NOTES BATCHES [WITNESS]   writes; notes "writer batch [size of WITNESS]" on NOTES
//! acknowledged check                               answers lines "DIR acknowledged.. " on standard input
//! acknowledged                                     does both, in a temporary directory
//! ```
//!
//! Whatever cuts the writing off (a kill, a power loss, a copy of the disk), what is left can be checked.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use tier_nvme::{NvmeError, NvmeStore, StorageConfig, WriteBatch};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Writers that share commits, each with keys of its own.
const WRITERS: usize = 3;

/// A batch deletes what the one so many before it put.
const LIFE_BATCHES: u64 = 5;

const SEGMENT_BYTES: u64 = 256 << 10;

fn open(directory: &Path) -> Result<NvmeStore, NvmeError> {
    let config = StorageConfig::default().with_segment_bytes(SEGMENT_BYTES);
    NvmeStore::new(directory, config)
}

/// The value of batch `number`: its length and bytes follow from the number.
fn value(writer: usize, number: u64) -> Vec<u8> {
    let mix = number
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(writer as u64);
    let len = match mix % 4 {
        0 => mix >> 32 & 0xff,
        1 => 4096,
        _ => mix >> 32 & 0x7fff,
    };
    let bytes = mix.to_le_bytes();
    (0..len as usize)
        .map(|at| bytes[at % 8] ^ at as u8)
        .collect()
}

fn key(writer: usize, number: u64) -> String {
    format!("{writer}/batch-{number}")
}

fn counter(writer: usize) -> String {
    format!("{writer}/count")
}

/// A new key, an old one gone, one that is replaced each time, and the count.
fn batch(writer: usize, number: u64) -> WriteBatch {
    let batch = WriteBatch::new()
        .put(key(writer, number), value(writer, number))
        .put(format!("{writer}/same"), value(writer, number))
        .put(counter(writer), number.to_le_bytes().to_vec());
    match number.checked_sub(LIFE_BATCHES) {
        Some(old) if old > 0 => batch.delete(key(writer, old)),
        _ => batch,
    }
}

/// How many batches of a writer a store has.
fn count_of(store: &NvmeStore, writer: usize) -> Outcome<u64> {
    match store.read_direct(counter(writer))? {
        None => Ok(0),
        Some(value) => Ok(u64::from_le_bytes(value[..].try_into()?)),
    }
}

/// Lets each writer write `batches` more.
fn write(directory: &Path, notes: &Path, batches: u64, witness: Option<&Path>) -> Outcome<()> {
    let store = open(directory)?;
    let notes = Mutex::new(File::options().append(true).create(true).open(notes)?);
    let write_all = |writer: usize| -> Outcome<()> {
        let before = count_of(&store, writer)?;
        for number in before + 1..=before + batches {
            store.write_batch(batch(writer, number))?;
            let seen_bytes =
                witness.map_or(Ok(0), |path| path.metadata().map(|file| file.len()))?;
            let note = format!("{writer} {number} {seen_bytes}\n");
            let mut notes = notes.lock().map_err(|_| "another writer failed")?;
            notes.write_all(note.as_bytes())?;
            drop(notes);
            if writer == 0 && number.is_multiple_of(8) {
                store.checkpoint()?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write_all(writer)))
            .collect();
        let mut outcome = Ok(());
        for writer in writers {
            outcome = outcome.and(writer.join().map_err(|_| "a writer panicked")?);
        }
        outcome
    })?;
    store.close()?;
    Ok(())
}

/// Opens a store of which at least `acknowledged` batches of each writer were acknowledged, compares all
/// of it, and lets it work on.
fn check(directory: &Path, acknowledged: &[u64]) -> Outcome<Vec<u64>> {
    let store = open(directory)?;
    let mut counts = Vec::new();
    let mut expected_keys = 0;
    for writer in 0..WRITERS {
        let count = count_of(&store, writer)?;
        let known = acknowledged.get(writer).copied().unwrap_or(0);
        if count < known {
            return Err(
                format!("writer {writer} has {count} of {known} acknowledged batches").into(),
            );
        }
        let oldest = count.saturating_sub(LIFE_BATCHES - 1).max(1);
        for number in oldest..=count {
            expect(&store, &key(writer, number), &value(writer, number))?;
        }
        if count > 0 {
            expect(&store, &format!("{writer}/same"), &value(writer, count))?;
            expected_keys += 2 + (count + 1 - oldest);
        }
        counts.push(count);
    }
    if store.len() != expected_keys {
        return Err(format!("{} keys instead of {expected_keys}", store.len()).into());
    }
    let report = store.verify()?;
    if !report.is_whole() {
        return Err(format!("damaged: {report:?}").into());
    }
    store.write_batch(batch(0, counts[0] + 1))?;
    store.close()?;
    Ok(counts)
}

fn expect(store: &NvmeStore, key: &str, value: &[u8]) -> Outcome<()> {
    match store.read_direct(key)? {
        Some(read) if *read == *value => Ok(()),
        Some(_) => Err(format!("{key} has other bytes").into()),
        None => Err(format!("{key} is missing").into()),
    }
}

/// Answers each line of directory and counts: "ok" and the counts found, or what is wrong.
fn answer_all() -> Outcome<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let directory = words.next().ok_or("a line without a directory")?;
        let acknowledged = words.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        match check(Path::new(directory), &acknowledged) {
            Ok(counts) => println!("ok {counts:?}"),
            Err(error) => println!("wrong: {error}"),
        }
    }
    Ok(())
}

fn show() -> Outcome<()> {
    let root = tempfile::tempdir()?;
    let (directory, notes) = (root.path().join("store"), root.path().join("notes"));
    write(&directory, &notes, 100, None)?;
    let mut acknowledged = [0; WRITERS];
    for line in std::fs::read_to_string(notes)?.lines() {
        let mut words = line.split_whitespace();
        let writer: usize = words.next().ok_or("a line without a writer")?.parse()?;
        acknowledged[writer] = words.next().ok_or("a line without a batch")?.parse()?;
    }
    let found = check(&directory, &acknowledged)?;
    println!("acknowledged {acknowledged:?}, found {found:?}");
    Ok(())
}

fn main() -> Outcome<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => show(),
        ["check"] => answer_all(),
        ["write", directory, notes, batches, ref witness @ ..] => {
            let batches = batches.parse()?;
            let witness = witness.first().map(Path::new);
            write(Path::new(directory), Path::new(notes), batches, witness)
        }
        _ => Err("write DIR NOTES BATCHES [WITNESS], check, or nothing".into()),
    }
}
