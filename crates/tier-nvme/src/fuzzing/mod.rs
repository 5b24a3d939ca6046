//! What the fuzz targets and the tests of damaged input feed: bytes that nobody has checked.
//!
//! Each target takes any bytes, and panics if a parser does, or if what it made of them is not what it
//! makes of their encoding. It is no part of the public interface.

mod image;
mod slab;
mod structures;
mod wal;

/// One way to feed bytes to something that reads them from disk.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the structure.
    pub name: &'static str,
    /// Feeds bytes.
    pub run: fn(&[u8]),
    /// Inputs that are whole structures, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 13] = [
    Target {
        name: "superblock",
        run: structures::superblock,
        seeds: structures::superblock_seeds,
    },
    Target {
        name: "segment_header",
        run: structures::segment_header,
        seeds: structures::segment_header_seeds,
    },
    Target {
        name: "batch_header",
        run: structures::batch_header,
        seeds: structures::batch_header_seeds,
    },
    Target {
        name: "checkpoint",
        run: structures::checkpoint,
        seeds: structures::checkpoint_seeds,
    },
    Target {
        name: "store",
        run: image::store,
        seeds: image::store_seeds,
    },
    Target {
        name: "wal_file_header",
        run: wal::file_header,
        seeds: wal::file_header_seeds,
    },
    Target {
        name: "wal_group",
        run: wal::group,
        seeds: wal::group_seeds,
    },
    Target {
        name: "wal",
        run: wal::log,
        seeds: wal::log_seeds,
    },
    Target {
        name: "slab_superblock",
        run: slab::superblock,
        seeds: slab::superblock_seeds,
    },
    Target {
        name: "slab_segment_header",
        run: slab::segment_header,
        seeds: slab::segment_header_seeds,
    },
    Target {
        name: "slab_record",
        run: slab::record,
        seeds: slab::record_seeds,
    },
    Target {
        name: "slab_table",
        run: slab::table,
        seeds: slab::table_seeds,
    },
    Target {
        name: "slab",
        run: slab::slab,
        seeds: slab::slab_seeds,
    },
];

/// Feeds `bytes` to the target `name`.
///
/// # Panics
/// If there is no such target, or the target finds something.
#[expect(clippy::panic, reason = "a finding is a panic")]
pub fn run(name: &str, bytes: &[u8]) {
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => (target.run)(bytes),
        None => panic!("there is no fuzz target {name}"),
    }
}

/// Takes the first byte off.
fn split_first(bytes: &[u8]) -> (u8, &[u8]) {
    bytes
        .split_first()
        .map_or((0, bytes), |(&first, rest)| (first, rest))
}
