//! What a simulated disk does wrong, and how often it did.

use std::ops::AddAssign;

/// How often operations fail, in thousandths; everything else is the seed's choice.
///
/// The first five are faults that a device or a kernel admits to: a store on top has to survive them
/// without loss. The others are lies: the operation reports success. Nothing can undo a lie, but it must
/// be noticed before anybody is given a wrong byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// Reads that fail.
    pub read_errors: u32,
    /// Writes that fail, with any of their sectors written.
    pub write_errors: u32,
    /// Syncs that fail, with any of the writes durable and the others silently forgotten.
    pub sync_errors: u32,
    /// Reads and writes that end early, at any sector, and have to be resumed.
    pub short_transfers: u32,
    /// Reads and writes that are put off (EINTR, EAGAIN, EBUSY), and have to be made again.
    pub interruptions: u32,
    /// Reads that give the bytes of another place, in the same file or another.
    pub misdirected_reads: u32,
    /// Writes that go to another place, in the same file or another.
    pub misdirected_writes: u32,
    /// Reads of which one bit is wrong, this once.
    pub flipped_reads: u32,
    /// Writes of which one bit is wrong on the disk.
    pub flipped_writes: u32,
}

/// What of that which was not synced survives a power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Everything.
    Everything,
    /// Each write and each change of the directory whole or not at all.
    ByWrite,
    /// Each sector and each change of the directory on its own.
    BySector,
}

/// Declares the counts once, for the structure, its rows and its sum.
macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident: $row:literal,)*) => {
        /// What happened on a volume since it was made.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct FaultCounts {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl FaultCounts {
            /// Each count with a name for a table.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($row, self.$field)),*]
            }
        }

        impl AddAssign for FaultCounts {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counts! {
    /// Power losses.
    crashes: "power losses",
    /// Sectors that were not synced and survived a power loss.
    sectors_kept: "sectors kept",
    /// Sectors that were not synced and did not.
    sectors_lost: "sectors lost",
    /// Writes of which some sectors survived and some did not.
    writes_torn: "writes torn",
    /// Changes of the directory that were not synced and survived.
    changes_kept: "directory changes kept",
    /// Changes of the directory that were not synced and did not.
    changes_lost: "directory changes lost",
    /// Reads that failed.
    read_errors: "read errors",
    /// Writes that failed.
    write_errors: "write errors",
    /// Syncs that failed.
    sync_errors: "sync errors",
    /// Creations that failed for want of space.
    space_errors: "no space",
    /// Reads and writes that ended early.
    short_transfers: "short transfers",
    /// Reads and writes that were put off.
    interruptions: "interruptions",
    /// Reads that gave the bytes of another place.
    misdirected_reads: "misdirected reads",
    /// Writes that went to another place.
    misdirected_writes: "misdirected writes",
    /// Reads of which a bit was wrong.
    flipped_reads: "flipped reads",
    /// Writes of which a bit was wrong.
    flipped_writes: "flipped writes",
    /// Operations that completed before one that was submitted earlier.
    reordered: "completions out of order",
    /// Operations that were in flight when the power failed or the process died.
    cut_off: "operations cut off in flight",
    /// Writes of a killed process that reached the disk after its death.
    stragglers: "writes after death",
}
