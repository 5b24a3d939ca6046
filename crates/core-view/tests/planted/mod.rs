//! What a suite says of something that is broken on purpose.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// What a suite panics with, or `None` if it passes.
pub(crate) fn verdict(suite: impl FnOnce()) -> Option<String> {
    // One report at a time: the library that prints them is not known to sanitizers.
    static REPORTING: Mutex<()> = Mutex::new(());
    let _alone = REPORTING.lock().unwrap();
    let panic = catch_unwind(AssertUnwindSafe(suite)).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
}

/// Demands that the fault was noticed, and named so.
pub(crate) fn assert_names(fault: &str, verdict: Option<String>, expected: &str) {
    assert!(
        verdict.as_ref().is_some_and(|text| text.contains(expected)),
        "{fault}: {verdict:?}"
    );
}
