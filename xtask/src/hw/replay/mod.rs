//! Block-level crash replay: a store works on a device whose writes are logged, and every state that a
//! power loss could have left of the device is put together from the log, mounted and opened.

mod rig;
mod write_log;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use super::probe::Availability;
use crate::command::{Invocation, Shell};
use crate::error::Error;
use crate::test_counts::Counts;
use rig::{Mounted, Rig};
use write_log::Entry;

/// The program that writes and checks.
const PROGRAM: &str = "acknowledged";

/// How many batches each of its writers writes in one life: some hundred entries of the log.
const BATCHES: &str = "9";

/// How often the store is opened, written and closed.
const LIVES: usize = 2;

/// Writers of the program.
const WRITERS: usize = 3;

/// Whether the replay can run here.
pub(super) fn available() -> Availability {
    rig::available()
}

/// What the replay found.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) counts: Counts,
    pub(super) failures: Vec<String>,
}

/// A batch of a writer that was acknowledged when the log had so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    writer: usize,
    number: u64,
    log_bytes: u64,
}

/// Records a life of the store, and checks every cut of its log.
pub(super) fn run(shell: &Shell) -> Result<Replayed, Error> {
    let program = build(shell)?;
    let root = scratch().join(format!("stepwell-replay-{}", std::process::id()));
    std::fs::create_dir_all(&root).map_err(Error::file("create", &root))?;
    let outcome = record(&root, &program).and_then(|notes| {
        let started = Instant::now();
        let replayed = Replay::new(&root, &program)?.run(&notes)?;
        println!(
            "    {} states checked against {} acknowledgements in {:.1} s",
            replayed.counts.passed + replayed.counts.failed,
            notes.len(),
            started.elapsed().as_secs_f64()
        );
        Ok(replayed)
    });
    // What is left over says nothing about the store.
    drop(std::fs::remove_dir_all(&root));
    outcome
}

/// Memory where there is a file system of it: hundreds of images are made and synced.
fn scratch() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

fn build(shell: &Shell) -> Result<PathBuf, Error> {
    let arguments = ["build", "-p", "tier-nvme", "--example", PROGRAM];
    let finished = Invocation::cargo().args(arguments).run(shell)?;
    if !finished.success {
        return Err(Error::CommandFailed {
            command: format!("cargo {}", arguments.join(" ")),
            detail: finished.ending(),
        });
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| shell.root.join("target"), PathBuf::from);
    Ok(target.join("debug/examples").join(PROGRAM))
}

/// Lets the program write on the logged device, and reads its notes.
fn record(root: &Path, program: &Path) -> Result<Vec<Note>, Error> {
    let rig = Rig::start(root)?;
    let directory = rig.path("mounted");
    std::fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
    let mounted = rig.mount(&directory)?;
    let (store, notes, log) = (directory.join("store"), rig.path("notes"), rig.path("log"));
    let words = [store.as_path(), &notes, Path::new(BATCHES), &log];
    let words: Vec<_> = words.iter().filter_map(|word| word.to_str()).collect();
    let program = program.to_str().unwrap_or_default();
    for _ in 0..LIVES {
        rig::run(program, &[&["write"][..], &words].concat())?;
    }
    mounted.unmount()?;
    rig.stop()?;
    let text = std::fs::read_to_string(&notes).map_err(Error::file("read", &notes))?;
    Ok(text.lines().filter_map(note).collect())
}

fn note(line: &str) -> Option<Note> {
    let mut words = line.split_whitespace();
    Some(Note {
        writer: words.next()?.parse().ok()?,
        number: words.next()?.parse().ok()?,
        log_bytes: words.next()?.parse().ok()?,
    })
}

/// The newest batch of each writer that was acknowledged before the log had `log_bytes`.
fn acknowledged(notes: &[Note], log_bytes: u64) -> [u64; WRITERS] {
    let mut newest = [0; WRITERS];
    for note in notes.iter().filter(|note| note.log_bytes <= log_bytes) {
        if let Some(number) = newest.get_mut(note.writer) {
            *number = note.number.max(*number);
        }
    }
    newest
}

/// The device as it was at the last flush, and what was written since.
struct Replay {
    log: File,
    flushed: PathBuf,
    state: PathBuf,
    directory: PathBuf,
    checker: Checker,
    pending: Vec<Entry>,
    /// Where in the log the last flush ends.
    flushed_at: u64,
    random: u64,
    replayed: Replayed,
}

impl Replay {
    fn new(root: &Path, program: &Path) -> Result<Self, Error> {
        let path = root.join("log");
        Ok(Self {
            log: File::open(&path).map_err(Error::file("open", &path))?,
            flushed: root.join("initial"),
            state: root.join("state"),
            directory: root.join("mounted"),
            checker: Checker::start(program)?,
            pending: Vec::new(),
            flushed_at: 0,
            random: 1,
            replayed: Replayed {
                counts: Counts::default(),
                failures: Vec::new(),
            },
        })
    }

    /// Checks the device after each entry: with all that was written until then, and with some of what
    /// was not flushed left out.
    fn run(mut self, notes: &[Note]) -> Result<Replayed, Error> {
        let entries = write_log::read(&self.log).map_err(Error::file("read", "the log"))?;
        let count = entries.len();
        for (index, entry) in entries.into_iter().enumerate() {
            let what = format!("entry {index} of {count}");
            if entry.is_flush() {
                self.flushed_at = entry.end_at;
                let pending = std::mem::take(&mut self.pending);
                apply(&self.log, &self.flushed, &pending)?;
            }
            if entry.len_bytes > 0 {
                self.pending.push(entry);
            }
            let newest = acknowledged(notes, self.flushed_at);
            self.check(&what, &self.pending.clone(), &newest)?;
            if self.pending.len() > 1 {
                let some = self.some_of_pending();
                self.check(&format!("{what}, some left out"), &some, &newest)?;
            }
        }
        Ok(self.replayed)
    }

    /// What is durable, and any of the rest.
    fn some_of_pending(&mut self) -> Vec<Entry> {
        let pending = self.pending.clone();
        pending
            .into_iter()
            .filter(|entry| entry.is_durable() || self.toss())
            .collect()
    }

    /// A coin that falls the same way in each run (xorshift).
    fn toss(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random & 1 == 0
    }

    fn check(&mut self, what: &str, written: &[Entry], newest: &[u64]) -> Result<(), Error> {
        std::fs::copy(&self.flushed, &self.state).map_err(Error::file("write", &self.state))?;
        apply(&self.log, &self.state, written)?;
        let answer = match Mounted::new(&self.state, &self.directory) {
            Ok(mounted) => {
                let answer = self.checker.ask(&self.directory.join("store"), newest)?;
                mounted.unmount()?;
                answer
            }
            Err(error) => format!("the file system cannot be mounted: {error}"),
        };
        if answer.starts_with("ok") {
            self.replayed.counts.passed += 1;
        } else {
            self.replayed.counts.failed += 1;
            self.replayed.failures.push(format!("{what}: {answer}"));
        }
        Ok(())
    }
}

/// Writes entries of the log onto an image.
fn apply(log: &File, image: &Path, entries: &[Entry]) -> Result<(), Error> {
    let file = File::options()
        .write(true)
        .open(image)
        .map_err(Error::file("open", image))?;
    for entry in entries {
        let mut bytes = vec![0; entry.len_bytes as usize];
        if !entry.is_discard() {
            log.read_exact_at(&mut bytes, entry.data_at)
                .map_err(Error::file("read", "the log"))?;
        }
        file.write_all_at(&bytes, entry.offset_bytes)
            .map_err(Error::file("write", image))?;
    }
    Ok(())
}

/// The program that checks stores, one after the other.
struct Checker {
    child: Child,
    questions: Option<ChildStdin>,
    answers: Option<BufReader<ChildStdout>>,
}

impl Checker {
    fn start(program: &Path) -> Result<Self, Error> {
        let mut child = Command::new(program)
            .arg("check")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Command {
                command: program.display().to_string(),
                source,
            })?;
        Ok(Self {
            questions: child.stdin.take(),
            answers: child.stdout.take().map(BufReader::new),
            child,
        })
    }

    fn ask(&mut self, store: &Path, newest: &[u64]) -> Result<String, Error> {
        let numbers: Vec<String> = newest.iter().map(u64::to_string).collect();
        let question = format!("{} {}\n", store.display(), numbers.join(" "));
        let mut answer = String::new();
        let asked = self
            .questions
            .as_mut()
            .map_or(Ok(()), |questions| questions.write_all(question.as_bytes()));
        let heard = self
            .answers
            .as_mut()
            .map_or(Ok(0), |answers| answers.read_line(&mut answer));
        asked
            .and(heard)
            .map_err(Error::file("ask", "the checking program"))?;
        if answer.is_empty() {
            answer.push_str("the checking program ended");
        }
        Ok(answer.trim().to_owned())
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        // Without questions it ends by itself.
        self.questions = None;
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_acknowledged_before_counts() {
        let lines = ["0 1 100", "1 1 250", "0 2 300", "2 9", "x"];
        let notes: Vec<_> = lines.into_iter().filter_map(note).collect();
        assert_eq!(notes.len(), 3);
        assert_eq!(acknowledged(&notes, 99), [0, 0, 0]);
        assert_eq!(acknowledged(&notes, 299), [1, 1, 0]);
        assert_eq!(acknowledged(&notes, 300), [2, 1, 0]);
    }
}
