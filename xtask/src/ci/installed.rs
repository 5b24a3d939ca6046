//! Whether an optional tool is there.

use std::process::{Command, Stdio};

/// Whether `program arguments` succeeds, silently.
pub(crate) fn answers(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether the nightly toolchain is installed.
pub(crate) fn nightly() -> bool {
    answers("rustup", &["run", "nightly", "rustc", "--version"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_is_success() {
        assert!(answers("true", &[]));
        assert!(!answers("false", &[]));
        assert!(!answers("no-such-program", &[]));
    }
}
