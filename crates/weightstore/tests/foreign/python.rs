//! Scripts that write files.

use std::path::Path;
use std::process::Command;

/// What a script that can't run here ends with.
const SKIPPED: i32 = 77;

/// Runs a script of this folder; `None`, with the reason said, if it can't run here.
pub(crate) fn output_of(python: &str, script: &str, folder: &Path) -> Option<String> {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign");
    let output = Command::new(python)
        .arg("-B")
        .arg(scripts.join(script))
        .arg(folder)
        .output();
    match output {
        Ok(output) if output.status.success() => Some(String::from_utf8(output.stdout).unwrap()),
        Ok(output) if output.status.code() == Some(SKIPPED) => {
            println!(
                "skipped: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            None
        }
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("skipped: {python} does not run ({error})");
            None
        }
    }
}
