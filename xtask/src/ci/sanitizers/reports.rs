//! What sanitizers reported, in few lines: whole reports are thousands of lines of generic names.

/// Most reports that are told; the first ones say most.
const REPORTS_MAX: usize = 3;
/// Most frames of each of a report's stacks.
const FRAMES_MAX: usize = 10;
/// Longest line, in characters.
const LINE_MAX: usize = 150;

/// The first frames of each stack of the first reports.
pub(super) fn digest<S: AsRef<str>>(lines: &[S]) -> Vec<String> {
    let mut digest = Vec::new();
    let mut reports = 0;
    let mut inside = false;
    let mut frames = 0;
    for line in lines {
        let line = line.as_ref().trim();
        if begins(line) {
            reports += 1;
            inside = reports <= REPORTS_MAX;
        }
        if !inside {
            continue;
        }
        frames = if line.starts_with('#') { frames + 1 } else { 0 };
        if frames <= FRAMES_MAX && !line.is_empty() {
            digest.push(line.chars().take(LINE_MAX).collect());
        }
        inside = !line.starts_with("SUMMARY: ");
    }
    if reports > REPORTS_MAX {
        digest.push(format!("and {} more reports", reports - REPORTS_MAX));
    }
    digest
}

fn begins(line: &str) -> bool {
    line.contains("WARNING: ThreadSanitizer: ")
        || line.contains("ERROR: AddressSanitizer: ")
        || line.contains("ERROR: LeakSanitizer: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(frames: usize) -> Vec<String> {
        let mut lines = vec![
            "==================".to_owned(),
            "WARNING: ThreadSanitizer: data race (pid=1)".to_owned(),
            "  Write of size 8 at 0x1 by thread T1:".to_owned(),
        ];
        lines.extend((0..frames).map(|frame| format!("    #{frame} {}", "name".repeat(100))));
        lines.push(String::new());
        lines.push("  Previous read of size 8 at 0x1 by thread T2:".to_owned());
        lines.push("    #0 main".to_owned());
        lines.push("SUMMARY: ThreadSanitizer: data race".to_owned());
        lines.push("test a ... ok".to_owned());
        lines
    }

    #[test]
    fn the_first_frames_of_each_stack_are_told() {
        let digest = digest(&report(40));
        assert_eq!(digest.len(), 2 + FRAMES_MAX + 3);
        assert!(digest.iter().all(|line| line.chars().count() <= LINE_MAX));
        assert_eq!(
            digest[2 + FRAMES_MAX..],
            [
                "Previous read of size 8 at 0x1 by thread T2:",
                "#0 main",
                "SUMMARY: ThreadSanitizer: data race"
            ]
        );
    }

    #[test]
    fn reports_beyond_the_first_are_counted() {
        let lines: Vec<_> = (0..5).flat_map(|_| report(1)).collect();
        let digest = digest(&lines);
        assert_eq!(digest.len(), 6 * REPORTS_MAX + 1);
        assert_eq!(digest[6 * REPORTS_MAX], "and 2 more reports");
    }

    #[test]
    fn a_run_without_reports_has_no_digest() {
        assert!(digest(&["running 1 test", "test a ... ok"]).is_empty());
    }
}
