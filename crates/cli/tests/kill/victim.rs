//! A process that is killed, from outside.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::{TempDir, tempdir};

/// Where a child works.
pub(crate) const FOLDER_VARIABLE: &str = "STEPWELL_KILL_FOLDER";

/// How long a process may take to open what the one before left.
pub(crate) const OPEN_MAX: Duration = Duration::from_secs(60);

const SIGKILL: i32 = 9;

/// A folder on the disk that the program was built on: memory would hide what a device does.
pub(crate) fn folder(prefix: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .or_else(|_| tempdir())
        .unwrap()
}

/// Starts `child_process` of this program, to work in a folder.
pub(crate) fn child_process(folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_process", "--ignored", "--nocapture"])
        .env(FOLDER_VARIABLE, folder)
        .stdin(Stdio::null());
    command
}

/// A process under way, and what it says.
#[derive(Debug)]
pub(crate) struct Victim {
    child: Child,
    said: Receiver<String>,
    reader: JoinHandle<()>,
}

impl Victim {
    /// Starts it, and listens to its lines that begin with `mark`, which is taken off.
    pub(crate) fn start(command: &mut Command, mark: &'static str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let pipe = BufReader::new(child.stdout.take().unwrap());
        let (sender, said) = channel();
        let reader = std::thread::spawn(move || {
            for line in pipe.lines() {
                let line = line.unwrap();
                if let Some(line) = line.strip_prefix(mark) {
                    sender.send(line.to_owned()).unwrap();
                }
            }
        });
        Self {
            child,
            said,
            reader,
        }
    }

    /// Its standard input, where that is a pipe.
    pub(crate) fn take_input(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// The first line, which it says when it has opened what is there.
    pub(crate) fn first_line(&self) -> Result<String, RecvTimeoutError> {
        self.said.recv_timeout(OPEN_MAX)
    }

    /// What it says, line by line.
    pub(crate) fn said(&self) -> &Receiver<String> {
        &self.said
    }

    /// Kills it. The lines that nobody has taken yet.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        self.reader.join().unwrap();
        let lines: Vec<String> = self.said.iter().collect();
        assert_eq!(
            status.signal(),
            Some(SIGKILL),
            "it ended by itself, {status}: {lines:?}"
        );
        lines
    }
}

#[test]
#[should_panic(expected = "it ended by itself")]
fn a_process_that_ends_by_itself_was_not_killed() {
    let victim = Victim::start(&mut Command::new("true"), "");
    assert!(victim.first_line().is_err());
    victim.kill();
}
