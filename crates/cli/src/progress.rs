//! Progress bars.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use weightstore::Progress;

/// Operations shorter than this show no bar.
const SILENT: Duration = Duration::from_secs(1);

/// A bar on standard error, shown only on a terminal and only once the operation takes long.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    bar: ProgressBar,
    started: Instant,
    wanted: bool,
    shown: AtomicBool,
}

impl ProgressLine {
    pub(crate) fn new(what: &str, wanted: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let template = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self {
            bar,
            started: Instant::now(),
            wanted: wanted && std::io::stderr().is_terminal(),
            shown: AtomicBool::new(false),
        }
    }

    /// Moves the bar. A total of 0 is one that is not known.
    pub(crate) fn set(&self, progress: Progress) {
        if !self.wanted || self.started.elapsed() < SILENT {
            return;
        }
        if progress.total_bytes > 0 {
            self.bar.set_length(progress.total_bytes);
        }
        if !self.shown.swap(true, Ordering::Relaxed) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.bar.set_position(progress.done_bytes);
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
