//! The choice of an engine.

use std::sync::Arc;

use super::{EngineChoice, VolumeOptions};
use crate::engine::{Engine, ThreadPool};
use crate::{FileMode, NvmeError};

/// Threads of the pool by default: enough to keep a device busy with large reads.
const POOL_THREADS: u32 = 8;

#[cfg(feature = "io-uring")]
const RING_THREADS: u32 = 1;

/// An engine, and why it is not a better one.
pub(super) struct Chosen {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) reason: Option<String>,
    /// Whether the ring was wanted and refused.
    pub(super) is_fallback: bool,
}

/// Starts the best engine that the options ask for and the kernel allows.
pub(super) fn choose(
    options: &VolumeOptions,
    mode: &FileMode,
    location: &str,
) -> Result<Chosen, NvmeError> {
    let (refusal, is_fallback) = match (options.engine, mode) {
        (EngineChoice::ThreadPool, _) => ("the options ask for the thread pool".to_owned(), false),
        // Copies out of the page cache are work: more than one thread can do them.
        (EngineChoice::Auto, FileMode::Buffered { .. }) => {
            let reason = "buffered reads and writes are copied by several threads";
            (reason.to_owned(), false)
        }
        _ => match start_ring(options) {
            Ok(engine) => {
                return Ok(Chosen {
                    engine,
                    reason: None,
                    is_fallback: false,
                });
            }
            Err(refusal) => (refusal, true),
        },
    };
    let threads = options.threads.unwrap_or(POOL_THREADS);
    let pool = ThreadPool::start(options.io_depth, threads)
        .map_err(|error| NvmeError::from_io("starting threads", location, 0, error))?;
    Ok(Chosen {
        engine: Arc::new(pool),
        reason: Some(refusal),
        is_fallback,
    })
}

#[cfg(feature = "io-uring")]
fn start_ring(options: &VolumeOptions) -> Result<Arc<dyn Engine>, String> {
    let threads = options.threads.unwrap_or(RING_THREADS);
    let engine = crate::engine::ring::IoUring::start(options.io_depth, threads)?;
    Ok(Arc::new(engine))
}

#[cfg(not(feature = "io-uring"))]
fn start_ring(_options: &VolumeOptions) -> Result<Arc<dyn Engine>, String> {
    Err("this program was built without the io-uring feature".to_owned())
}
