//! Running other programs: their output is logged in full, shown in part, and bounded in time.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::process_tree;

/// How a finished program ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// It exited with code 0, within its limit.
    pub(crate) success: bool,
    /// It was killed at its limit.
    pub(crate) timed_out: bool,
    /// The exit code; absent after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output and standard error, interleaved as they came.
    pub(crate) lines: Vec<String>,
}

impl Finished {
    /// The ending in words.
    pub(crate) fn ending(&self) -> String {
        match (self.timed_out, self.code) {
            (true, _) => "ran past its time limit".to_owned(),
            (false, Some(code)) => format!("exit code {code}"),
            (false, None) => "killed by a signal".to_owned(),
        }
    }

    /// Whether any line contains `text`.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }
}

/// Which lines of a program reach the terminal; the log always gets all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// All lines.
    Everything,
    /// All but cargo's progress and passing tests.
    Notable,
    /// None.
    Nothing,
}

/// A program to run.
#[derive(Debug)]
pub(crate) struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    limit: Option<Duration>,
    until: Option<&'static str>,
    echo: Echo,
}

impl Invocation {
    /// A program by name or path.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            limit: None,
            until: None,
            echo: Echo::Notable,
        }
    }

    /// Cargo of the pinned toolchain.
    pub(crate) fn cargo() -> Self {
        Self::new("cargo")
    }

    /// Cargo of the nightly toolchain.
    pub(crate) fn nightly_cargo() -> Self {
        Self::new("rustup").args(["run", "nightly", "cargo"])
    }

    /// Adds arguments.
    pub(crate) fn args<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Adds `--` and the arguments behind it, if there are any.
    pub(crate) fn arguments_after_dashes(self, arguments: &[String]) -> Self {
        if arguments.is_empty() {
            self
        } else {
            self.args(["--"]).args(arguments)
        }
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable that the caller's own environment may override.
    pub(crate) fn env_default(self, name: &str, value: impl AsRef<OsStr>) -> Self {
        if std::env::var_os(name).is_some() {
            self
        } else {
            self.env(name, value)
        }
    }

    /// Sets the working directory.
    pub(crate) fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Kills the program, and what it started, after `limit`.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Kills the program, and what it started, once a line ends with `text`: no more need be known.
    pub(crate) fn until(mut self, text: &'static str) -> Self {
        self.until = Some(text);
        self
    }

    /// Chooses what reaches the terminal.
    pub(crate) fn echo(mut self, echo: Echo) -> Self {
        self.echo = echo;
        self
    }

    /// The command line as a person would type it.
    pub(crate) fn display(&self) -> String {
        let mut words: Vec<String> = self
            .environment
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), quoted(&value.to_string_lossy())))
            .collect();
        words.push(self.program.to_string_lossy().into_owned());
        words.extend(
            self.arguments
                .iter()
                .map(|argument| quoted(&argument.to_string_lossy())),
        );
        words.join(" ")
    }

    /// Runs the program, announces it, and waits for its end.
    ///
    /// # Errors
    ///
    /// Only when the program cannot be started or the log cannot be written; a program that fails
    /// is a [`Finished`] without success.
    pub(crate) fn run(&self, shell: &Shell) -> Result<Finished, Error> {
        let mut log = shell.log()?;
        let shown = self.display();
        if self.echo != Echo::Nothing {
            println!("    $ {shown}");
        }
        let log_failed = |source| Error::File {
            action: "write",
            path: shell.log_path.clone(),
            source,
        };
        writeln!(log, "$ {shown}").map_err(log_failed)?;

        let failed = |source| Error::Command {
            command: shown.clone(),
            source,
        };
        let (reader, mut child) = self.spawn(shell).map_err(failed)?;
        let (sender, receiver) = mpsc::channel();
        let pump = thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                if sender
                    .send(String::from_utf8_lossy(&line).into_owned())
                    .is_err()
                {
                    break;
                }
            }
        });

        let echo = if shell.verbose && self.echo == Echo::Notable {
            Echo::Everything
        } else {
            self.echo
        };
        let deadline = self.limit.map(|limit| Instant::now() + limit);
        let mut lines = Vec::new();
        let mut timed_out = false;
        let status = loop {
            match receiver.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    writeln!(log, "{line}").map_err(log_failed)?;
                    if shows(echo, &line) {
                        println!("      {line}");
                    }
                    if self.until.is_some_and(|text| line.ends_with(text)) {
                        process_tree::kill(&mut child);
                    }
                    lines.push(line);
                    continue_or_kill(deadline, &mut timed_out, &mut child);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    continue_or_kill(deadline, &mut timed_out, &mut child);
                    if timed_out {
                        break child.wait().map_err(failed)?;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    break self
                        .wait_until(deadline, &mut timed_out, &mut child)
                        .map_err(failed)?;
                }
            }
        };
        if !timed_out {
            // After a kill, an escaped grandchild may hold the pipe open; its output is not awaited.
            let _ = pump.join();
        }
        Ok(Finished {
            success: status.success() && !timed_out,
            timed_out,
            code: status.code(),
            lines,
        })
    }

    /// Waits for a program that has closed its output.
    fn wait_until(
        &self,
        deadline: Option<Instant>,
        timed_out: &mut bool,
        child: &mut Child,
    ) -> std::io::Result<std::process::ExitStatus> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            continue_or_kill(deadline, timed_out, child);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn(&self, shell: &Shell) -> std::io::Result<(std::io::PipeReader, Child)> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.as_deref().unwrap_or(&shell.root))
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let child = command.spawn()?;
        Ok((reader, child))
    }
}

fn continue_or_kill(deadline: Option<Instant>, timed_out: &mut bool, child: &mut Child) {
    if !*timed_out && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        *timed_out = true;
        process_tree::kill(child);
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}

fn shows(echo: Echo, line: &str) -> bool {
    match echo {
        Echo::Everything => true,
        Echo::Notable => is_notable(line),
        Echo::Nothing => false,
    }
}

/// Whether a line says more than that work goes on.
fn is_notable(line: &str) -> bool {
    const PROGRESS: [&str; 16] = [
        "Adding",
        "Blocking",
        "Checking",
        "Compiling",
        "Documenting",
        "Doc-tests",
        "Downloaded",
        "Downloading",
        "Executable",
        "Finished",
        "Fresh",
        "Generated",
        "Locking",
        "Running",
        "Scanning",
        "Updating",
    ];
    let text = line.trim();
    let first = text.split_whitespace().next().unwrap_or("");
    let passing_test = first == "test" && (text.ends_with("ok") || text.contains("... ignored"));
    let empty_result = text.starts_with("test result: ok. 0 passed");
    let announced = first == "running" && (text.ends_with("tests") || text.ends_with("test"));
    let merged_doctests = text.starts_with("all doctests ran in");
    !(text.is_empty()
        || PROGRESS.contains(&first)
        || passing_test
        || empty_result
        || announced
        || merged_doctests)
}

/// Where programs run and what is kept of their output.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    /// The workspace root.
    pub(crate) root: PathBuf,
    /// The full output of every program goes here.
    pub(crate) log_path: PathBuf,
    /// Show all output.
    pub(crate) verbose: bool,
}

impl Shell {
    /// A shell at `root` that logs into `target/xtask/NAME.log`, emptied first.
    pub(crate) fn new(root: &Path, name: &str, verbose: bool) -> Result<Self, Error> {
        let directory = root.join("target/xtask");
        std::fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        let log_path = directory.join(format!("{name}.log"));
        File::create(&log_path).map_err(Error::file("create", &log_path))?;
        Ok(Self {
            root: root.to_owned(),
            log_path,
            verbose,
        })
    }

    fn log(&self) -> Result<File, Error> {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&self.log_path)
            .map_err(Error::file("open", &self.log_path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> (tempfile::TempDir, Shell) {
        let directory = tempfile::tempdir().unwrap();
        let shell = Shell::new(directory.path(), "row", false).unwrap();
        (directory, shell)
    }

    #[test]
    fn both_streams_arrive_and_are_logged() {
        let (_directory, shell) = shell();
        let finished = Invocation::new("sh")
            .args(["-c", "echo out; echo err >&2; exit 3"])
            .echo(Echo::Nothing)
            .run(&shell)
            .unwrap();
        assert!(!finished.success);
        assert_eq!(finished.code, Some(3));
        assert_eq!(finished.lines, ["out", "err"]);
        let log = std::fs::read_to_string(&shell.log_path).unwrap();
        assert!(log.contains("out\nerr\n"), "{log}");
    }

    #[test]
    fn a_limit_kills_the_program_and_its_children() {
        let (_directory, shell) = shell();
        let started = Instant::now();
        let finished = Invocation::new("sh")
            .args(["-c", "sleep 30 & sleep 30; echo late"])
            .limit(Duration::from_millis(200))
            .echo(Echo::Nothing)
            .run(&shell)
            .unwrap();
        assert!(finished.timed_out && !finished.success);
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(!finished.mentions("late"));
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let (_directory, shell) = shell();
        let error = Invocation::new("no-such-program")
            .args(["--flag"])
            .echo(Echo::Nothing)
            .run(&shell)
            .unwrap_err();
        assert!(
            error.to_string().contains("no-such-program --flag"),
            "{error}"
        );
    }

    #[test]
    fn progress_is_not_notable_and_trouble_is() {
        for quiet in [
            "   Compiling libc v0.2.1",
            "test pool::trims ... ok",
            "running 12 tests",
            "",
            "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            assert!(!is_notable(quiet), "{quiet}");
        }
        for loud in [
            "test pool::trims ... FAILED",
            "warning: unused variable",
            "error[E0308]: mismatched types",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            assert!(is_notable(loud), "{loud}");
        }
    }
}
