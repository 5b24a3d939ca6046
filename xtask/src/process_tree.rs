//! Ending a program together with what it started.
//!
//! Process groups would do the same, but a program in its own group no longer hears the
//! interrupt key of the terminal.

use std::process::{Child, Command, Stdio};

/// Kills `child` and its descendants as far as they are still its own.
pub(crate) fn kill(child: &mut Child) {
    let descendants = descendants(child.id(), &parents());
    // Best effort: a process that has ended by itself is what was wanted.
    let _ = child.kill();
    if !descendants.is_empty() {
        let _ = Command::new("kill")
            .arg("-KILL")
            .args(descendants.iter().map(u32::to_string))
            .stderr(Stdio::null())
            .status();
    }
}

/// Each process and its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let process = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((process, parent_of(&stat)?))
        })
        .collect()
}

/// The parent in a line of `/proc/PID/stat`, whose second field is a name that may hold anything.
fn parent_of(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn descendants(ancestor: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&current) = found.get(next) {
        next += 1;
        for &(process, parent) in parents {
            if parent == current && !found.contains(&process) {
                found.push(process);
            }
        }
    }
    found.retain(|&process| process != ancestor);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_past_a_hostile_name() {
        assert_eq!(parent_of("42 (a) R 7 (x) S 41 42 42 0"), Some(41));
        assert_eq!(parent_of("nonsense"), None);
    }

    #[test]
    fn descendants_are_transitive_and_exclude_strangers() {
        let parents = [(2, 1), (3, 2), (4, 3), (9, 8), (5, 2)];
        let mut found = descendants(2, &parents);
        found.sort_unstable();
        assert_eq!(found, [3, 4, 5]);
    }
}
