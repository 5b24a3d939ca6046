//! Files out of the page cache.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Advice, fadvise};

/// Has the kernel forget what it holds of the files below a directory, so that reads come from the device.
pub(crate) fn drop_pages(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            drop_pages(&path)?;
            continue;
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            // Compaction removes files meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // Pages that were not written yet stay.
        file.sync_data()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}
