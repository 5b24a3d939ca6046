//! The files below a directory.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::CliError;

/// Walks the regular files below a directory, in the order of their names; links are not followed.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// What is still to be looked at: paths below the root, and whether each is a directory.
    ahead: VecDeque<(PathBuf, bool)>,
}

impl Files {
    pub(super) fn below(root: &Path) -> Result<Self, CliError> {
        let mut files = Self {
            root: root.to_owned(),
            ahead: VecDeque::new(),
        };
        files.enter(Path::new(""))?;
        Ok(files)
    }

    /// Puts what is in a directory in front of what is still ahead.
    fn enter(&mut self, folder: &Path) -> Result<(), CliError> {
        let path = self.root.join(folder);
        let fail = |source| CliError::file("list", &path, source);
        let mut found: Vec<(OsString, bool)> = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() || kind.is_file() {
                found.push((entry.file_name(), kind.is_dir()));
            }
        }
        found.sort_unstable();
        for (name, is_directory) in found.into_iter().rev() {
            self.ahead.push_front((folder.join(name), is_directory));
        }
        Ok(())
    }
}

impl Iterator for Files {
    /// A file's path below the root, which is its key, and the path that opens it.
    type Item = Result<(PathBuf, PathBuf), CliError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (path, is_directory) = self.ahead.pop_front()?;
            if !is_directory {
                let full = self.root.join(&path);
                return Some(Ok((path, full)));
            }
            if let Err(error) = self.enter(&path) {
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_order_and_links_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("b/deep")).unwrap();
        for name in ["c", "b/z", "b/deep/x", "a"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("b/loop")).unwrap();
        let files = Files::below(root).unwrap();
        let names: Vec<String> = files
            .map(|file| file.unwrap().0.to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a", "b/deep/x", "b/z", "c"]);
        assert!(Files::below(&root.join("absent")).is_err());
    }
}
