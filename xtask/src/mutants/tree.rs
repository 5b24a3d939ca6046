//! A copy of the checkout to change.

use std::path::Path;

use crate::error::Error;
use crate::tracked;

/// Makes `target` hold the same files as `source`, touching only those that differ, so that an
/// earlier build of the copy stays usable.
pub(super) fn copy(source: &Path, target: &Path) -> Result<(), Error> {
    let files = tracked::files(source)?;
    std::fs::create_dir_all(target).map_err(Error::file("create", target))?;
    for stale in tracked::walked(target)?
        .iter()
        .filter(|file| !files.contains(file))
    {
        let path = target.join(stale);
        std::fs::remove_file(&path).map_err(Error::file("remove", &path))?;
    }
    for file in &files {
        let (from, to) = (source.join(file), target.join(file));
        if !from.is_file() {
            continue;
        }
        let bytes = std::fs::read(&from).map_err(Error::file("read", &from))?;
        if std::fs::read(&to).is_ok_and(|present| present == bytes) {
            continue;
        }
        if let Some(directory) = to.parent() {
            std::fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        }
        std::fs::write(&to, bytes).map_err(Error::file("write", &to))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_copy_removes_what_is_gone_and_keeps_what_is_equal() {
        let source = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        std::fs::create_dir(source.path().join("sub")).unwrap();
        std::fs::write(source.path().join("sub/a"), "1").unwrap();
        std::fs::write(source.path().join("b"), "2").unwrap();
        copy(source.path(), target.path()).unwrap();
        let written = target
            .path()
            .join("sub/a")
            .metadata()
            .and_then(|file| file.modified())
            .unwrap();

        std::fs::remove_file(source.path().join("b")).unwrap();
        std::fs::write(source.path().join("c"), "3").unwrap();
        copy(source.path(), target.path()).unwrap();
        assert!(!target.path().join("b").exists());
        assert_eq!(
            std::fs::read_to_string(target.path().join("c")).unwrap(),
            "3"
        );
        let kept = target
            .path()
            .join("sub/a")
            .metadata()
            .and_then(|file| file.modified())
            .unwrap();
        assert_eq!(written, kept);
    }
}
