//! How a real volume is opened.

use crate::NvmeError;

/// Which engine carries out reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// The ring for direct files where the kernel allows it, else the pool.
    #[default]
    Auto,
    /// The ring; where the kernel refuses it the pool, which the report says.
    IoUring,
    /// The pool of threads.
    ThreadPool,
}

/// How a [`RealVolume`](crate::RealVolume) is opened.
///
/// ```
/// use tier_nvme::{EngineChoice, VolumeOptions};
///
/// let options = VolumeOptions::default()
///     .with_io_depth(128)
///     .with_engine(EngineChoice::ThreadPool);
/// assert!(options.direct_io);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VolumeOptions {
    /// Go past the page cache where the file system can; on by default.
    pub direct_io: bool,
    /// Operations outstanding at most (1 to 4096); who submits more waits. 64 by default.
    pub io_depth: u32,
    /// The engine.
    pub engine: EngineChoice,
    /// Threads of the engine (1 to 256); by default 1 for the ring and 8 for the pool.
    pub threads: Option<u32>,
    /// Open for reading only, whatever is allowed; off by default.
    pub read_only: bool,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        Self {
            direct_io: true,
            io_depth: 64,
            engine: EngineChoice::Auto,
            threads: None,
            read_only: false,
        }
    }
}

impl VolumeOptions {
    /// Sets [`direct_io`](Self::direct_io).
    #[must_use]
    pub fn with_direct_io(mut self, direct_io: bool) -> Self {
        self.direct_io = direct_io;
        self
    }

    /// Sets [`io_depth`](Self::io_depth).
    #[must_use]
    pub fn with_io_depth(mut self, io_depth: u32) -> Self {
        self.io_depth = io_depth;
        self
    }

    /// Sets [`engine`](Self::engine).
    #[must_use]
    pub fn with_engine(mut self, engine: EngineChoice) -> Self {
        self.engine = engine;
        self
    }

    /// Sets [`threads`](Self::threads).
    #[must_use]
    pub fn with_threads(mut self, threads: u32) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets [`read_only`](Self::read_only).
    #[must_use]
    pub fn with_read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The defaults, as `STEPWELL_ENGINE` (`uring` or `pool`) and `STEPWELL_DIRECT` (`direct` or
    /// `buffered`) change them: so that a matrix of tests can choose.
    ///
    /// # Errors
    /// [`NvmeError::Invalid`] for another value of either.
    #[cfg(any(test, feature = "testing"))]
    pub fn from_test_environment() -> Result<Self, NvmeError> {
        let engine = std::env::var("STEPWELL_ENGINE").ok();
        let direct = std::env::var("STEPWELL_DIRECT").ok();
        Self::from_words(engine.as_deref(), direct.as_deref())
    }

    #[cfg(any(test, feature = "testing"))]
    fn from_words(engine: Option<&str>, direct: Option<&str>) -> Result<Self, NvmeError> {
        let invalid = |field, word: &str, known| NvmeError::Invalid {
            field,
            reason: format!("{word:?} is none of {known}"),
        };
        let engine = match engine {
            None => EngineChoice::Auto,
            Some("uring") => EngineChoice::IoUring,
            Some("pool") => EngineChoice::ThreadPool,
            Some(word) => return Err(invalid("STEPWELL_ENGINE", word, "uring, pool")),
        };
        let direct_io = match direct {
            None | Some("direct") => true,
            Some("buffered") => false,
            Some(word) => return Err(invalid("STEPWELL_DIRECT", word, "direct, buffered")),
        };
        Ok(Self::default()
            .with_engine(engine)
            .with_direct_io(direct_io))
    }

    pub(super) fn check(&self) -> Result<(), NvmeError> {
        let out_of_range = |field, value, limit| NvmeError::Invalid {
            field,
            reason: format!("{value} is not between 1 and {limit}"),
        };
        if !(1..=4096).contains(&self.io_depth) {
            return Err(out_of_range("io_depth", self.io_depth, 4096));
        }
        match self.threads {
            Some(threads) if !(1..=256).contains(&threads) => {
                Err(out_of_range("threads", threads, 256))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn out_of_range_values_name_the_field() {
        for (options, field) in [
            (VolumeOptions::default().with_io_depth(0), "io_depth"),
            (VolumeOptions::default().with_io_depth(4097), "io_depth"),
            (VolumeOptions::default().with_threads(0), "threads"),
            (VolumeOptions::default().with_threads(257), "threads"),
        ] {
            let error = options.check().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
        VolumeOptions::default().check().unwrap();
    }

    #[test]
    fn words_choose_engine_and_mode() {
        let options = VolumeOptions::from_words(Some("pool"), Some("buffered")).unwrap();
        assert_eq!(
            (options.engine, options.direct_io),
            (EngineChoice::ThreadPool, false)
        );
        let options = VolumeOptions::from_words(None, None).unwrap();
        assert_eq!(options, VolumeOptions::default());
        assert!(VolumeOptions::from_words(Some("fast"), None).is_err());
        assert!(VolumeOptions::from_words(None, Some("fast")).is_err());
    }
}
