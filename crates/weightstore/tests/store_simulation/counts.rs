//! How often each thing happened.

use std::ops::AddAssign;

/// Declares the counts once, for the structure, its rows and its sum.
macro_rules! counts {
    ($($field:ident: $row:literal,)*) => {
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub(crate) struct Counts {
            $(pub(crate) $field: u64,)*
        }

        impl Counts {
            pub(crate) fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($row, self.$field)),*]
            }
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

counts! {
    operations: "operations",
    reopens: "reopens",
    unsure_kept: "changes cut off and there afterwards",
    unsure_lost: "changes cut off and not there",
    imports: "models imported",
    deltas: "tensors stored as differences",
    removals: "models removed",
    bases_kept: "tensors kept by a removal",
    refusals: "deletions of bases refused",
    collections: "collections",
    collections_cut_off: "collections cut off",
    collected_tensors: "tensors collected",
    collected_chunks: "chunks collected",
    rebased: "tensors stored anew without their base",
    unreachable: "unreachable chunks found after a loss",
    resumed: "verifications in parts",
}
