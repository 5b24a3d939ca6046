//! The files of the checkout: those that git tracks, and new ones that it does not ignore.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// Directories that a walk without git leaves out.
const UNTRACKED: [&str; 2] = [".git", "target"];

/// All files, relative to `root`, sorted; asks git, or walks where there is no repository.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = match listed_by_git(root) {
        Some(files) => files,
        None => walked(root)?,
    };
    // Git lists a file that has been deleted but not yet staged.
    files.retain(|file| root.join(file).symlink_metadata().is_ok());
    files.sort();
    files.dedup();
    Ok(files)
}

/// The text of a file, or nothing if it is binary.
pub(crate) fn text(root: &Path, file: &Path) -> Result<Option<String>, Error> {
    let path = root.join(file);
    let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
    Ok(String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0')))
}

fn listed_by_git(root: &Path) -> Option<Vec<PathBuf>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let names = String::from_utf8(output.stdout).ok()?;
    Some(
        names
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .collect(),
    )
}

/// All files below `root`, relative to it, but for build output and git's own.
pub(crate) fn walked(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = std::fs::read_dir(&directory).map_err(Error::file("read", &directory))?;
        for entry in entries {
            let entry = entry.map_err(Error::file("read", &directory))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(Error::file("inspect", &path))?;
            if !kind.is_dir() {
                files.extend(path.strip_prefix(root).map(Path::to_owned));
            } else if !UNTRACKED.iter().any(|name| entry.file_name() == *name) {
                directories.push(path);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_leaves_out_build_output() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["a.rs", "sub/b.rs", "target/c.rs", ".git/config"] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let mut files = walked(directory.path()).unwrap();
        files.sort();
        assert_eq!(files, [PathBuf::from("a.rs"), PathBuf::from("sub/b.rs")]);
    }

    #[test]
    fn binary_files_have_no_text() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a"), b"\xff\xfe").unwrap();
        std::fs::write(directory.path().join("b"), b"a\0b").unwrap();
        std::fs::write(directory.path().join("c"), "text").unwrap();
        let text = |name: &str| text(directory.path(), Path::new(name)).unwrap();
        assert_eq!(text("a"), None);
        assert_eq!(text("b"), None);
        assert_eq!(text("c").as_deref(), Some("text"));
    }
}
