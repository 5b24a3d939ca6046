//! What the log is told of.

use std::sync::{Mutex, Once};

use log::{Level, LevelFilter, Log, Metadata, Record};
use tier_nvme::{EngineChoice, VolumeOptions};

use crate::filter::refuse;
use crate::{Outcome, apart, exercise};

/// Keeps what it is told.
struct Kept(Mutex<Vec<(Level, String)>>);

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

impl Log for Kept {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if let Ok(mut lines) = self.0.lock() {
            lines.push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// How many warnings there were with this text in them. Other tests of this process warn of other things.
fn warnings_with(text: &str) -> usize {
    let lines = KEPT.0.lock().map(|lines| lines.clone());
    lines.map_or(0, |lines| {
        let is_one =
            |(level, line): &&(Level, String)| *level == Level::Warn && line.contains(text);
        lines.iter().filter(is_one).count()
    })
}

fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        if log::set_logger(&KEPT).is_ok() {
            log::set_max_level(LevelFilter::Trace);
        }
    });
}

#[test]
fn each_fallback_is_said_once_with_its_reason() -> Outcome {
    listen();
    // Codes that no other test refuses with, so that these notices are this test's.
    for _ in 0..3 {
        apart(|| {
            refuse(libc::SYS_io_uring_setup, libc::EXDEV, None)?;
            exercise(VolumeOptions::default().with_engine(EngineChoice::IoUring)).map(drop)
        })?;
        apart(|| {
            refuse(
                libc::SYS_openat,
                libc::EXDEV,
                Some((2, libc::O_DIRECT as u32)),
            )?;
            exercise(VolumeOptions::default()).map(drop)
        })?;
    }
    let cross_device = std::io::Error::from_raw_os_error(libc::EXDEV).to_string();
    let ring = format!("threads do the work of io_uring: io_uring_setup failed: {cross_device}");
    assert_eq!(warnings_with(&ring), 1);
    let direct = format!(
        "files are read and written through the page cache: the file system refuses O_DIRECT: {cross_device}"
    );
    assert_eq!(warnings_with(&direct), 1);
    Ok(())
}

#[test]
fn what_was_asked_for_is_no_fallback() -> Outcome {
    listen();
    let asked = VolumeOptions::default()
        .with_engine(EngineChoice::ThreadPool)
        .with_direct_io(false);
    exercise(asked)?;
    assert_eq!(warnings_with("the options ask for"), 0);
    assert_eq!(warnings_with("turned off in the options"), 0);
    Ok(())
}
