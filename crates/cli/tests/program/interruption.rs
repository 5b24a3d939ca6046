//! A program that is told to stop leaves nothing behind.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::tempdir;

use crate::model::{noise, write};
use crate::process::values;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(60);

const SIGINT: i32 = 2;

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

fn wait_until(what: impl Fn() -> bool) {
    let started = Instant::now();
    while !what() {
        assert!(started.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// The program as a terminal starts it: what runs in the background of a script ignores the interruption, and so
/// do its children.
fn interruptible() -> Command {
    let mut command = Command::new("env");
    command
        .arg("--default-signal=INT")
        .arg(env!("CARGO_BIN_EXE_stepwell"));
    command
}

/// Interrupts a tour so long after it has begun; tells whether it had not ended before.
fn interrupt_tour(folder: &Path, delay: Duration) -> bool {
    let mut child = interruptible()
        .args(["tour", "--dir"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| !is_empty(folder) || child_is_done(&child));
    std::thread::sleep(delay);
    interrupt(&child);
    let status = child.wait().unwrap();
    assert!(is_empty(folder));
    // On a busy machine it may be done before this thread runs again.
    if status.code() == Some(0) {
        return false;
    }
    assert_eq!(status.signal(), Some(SIGINT), "{status:?}");
    true
}

#[test]
fn an_interrupted_tour_takes_its_directory_away() {
    let folder = tempdir().unwrap();
    for delay_ms in [20, 170] {
        let delay = Duration::from_millis(delay_ms);
        assert!((0..20).any(|_| interrupt_tour(folder.path(), delay)));
    }
}

#[test]
fn an_ignored_interruption_stays_ignored() {
    let folder = tempdir().unwrap();
    let script = "trap '' INT; exec \"$0\" doctor --dir \"$1\"";
    let mut child = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_stepwell")])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until(|| !is_empty(folder.path()) || child_is_done(&child));
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(is_empty(folder.path()));
}

fn child_is_done(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
    status.is_ok_and(|status| status.contains(") Z "))
}

#[test]
fn a_value_half_written_when_killed_leaves_no_file() {
    let folder = tempdir().unwrap();
    let store = folder.path().join("store");
    let value = write(folder.path(), "v", &noise(1, 8 << 20));
    values("put", &store, &[&"k", &value]).done();
    let output = folder.path().join("outputs");
    std::fs::create_dir(&output).unwrap();
    let mut whole = 0;
    for delay_ms in [0, 1, 2, 4, 8, 16, 32, 64] {
        let path = output.join("v");
        let mut child = Command::new(env!("CARGO_BIN_EXE_stepwell"))
            .args(["store", "get", "k", "--force", "--store"])
            .arg(&store)
            .arg("-o")
            .arg(&path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in std::fs::read_dir(&output).unwrap() {
            assert_eq!(entry.unwrap().file_name(), "v");
        }
        if path.exists() {
            whole += 1;
            assert_eq!(std::fs::read(&path).unwrap().len(), 8 << 20);
        }
    }
    println!("{whole} of 8 were whole before they were killed");
}
