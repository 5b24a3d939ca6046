//! Where imports read from.

use std::io;

/// A file, or what can be read like one, at any offset and from several threads.
///
/// The crate reads no files itself: a program implements this for its own handle.
///
/// ```
/// use weightstore::ByteSource;
///
/// let source = vec![1_u8, 2, 3];
/// let mut target = [0; 2];
/// source.read_exact_at(1, &mut target)?;
/// assert_eq!(target, [2, 3]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait ByteSource: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the source reports.
    fn len_bytes(&self) -> io::Result<u64>;

    /// Fills `target` from `offset_bytes`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the source ends before; whatever the source reports.
    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()>;

    /// A number that changes when the content does, such as a file's time of modification.
    ///
    /// An import compares it before and after. A source that can't tell keeps the provided method.
    ///
    /// # Errors
    /// Whatever the source reports.
    fn version(&self) -> io::Result<u128> {
        Ok(0)
    }
}

impl ByteSource for &[u8] {
    fn len_bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        let found = usize::try_from(offset_bytes)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(target.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(found);
        Ok(())
    }
}

impl ByteSource for Vec<u8> {
    fn len_bytes(&self) -> io::Result<u64> {
        self.as_slice().len_bytes()
    }

    fn read_exact_at(&self, offset_bytes: u64, target: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_exact_at(offset_bytes, target)
    }
}
