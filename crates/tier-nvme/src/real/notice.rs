//! What a volume has to do without, said once in the log.

use std::sync::{Mutex, PoisonError};

use crate::FileMode;

/// Notices that are remembered; after so many different ones no more are given.
const NOTICES_MAX: usize = 64;

/// Says that files go through the page cache, if they do.
pub(super) fn say_mode(mode: &FileMode, location: &str) {
    if let FileMode::Buffered { reason } = mode {
        say(
            "files are read and written through the page cache",
            reason,
            location,
        );
    }
}

/// Says that the pool does the work of the ring.
pub(super) fn say_engine(reason: Option<&str>, location: &str) {
    let reason = reason.unwrap_or("it was refused");
    say("threads do the work of io_uring", reason, location);
}

fn say(what: &str, reason: &str, location: &str) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let notice = format!("{what}: {reason}");
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() >= NOTICES_MAX || said.contains(&notice) {
        return;
    }
    log::warn!("{notice} ({location})");
    said.push(notice);
}
