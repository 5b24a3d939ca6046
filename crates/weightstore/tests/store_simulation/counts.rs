//! How often each thing happened.

use tier_nvme::RecoveryReport;

use crate::simulation::counts;

counts! {
    operations: "operations",
    reopens: "reopens after a loss",
    refused_opens: "opens that a fault cut off",
    created: "recovery: created",
    clean: "recovery: closed before the loss",
    batches_replayed: "recovery: batches replayed",
    tails_taken: "recovery: unacknowledged tail taken",
    tails_discarded: "recovery: torn tail discarded",
    files_removed: "recovery: unfinished files removed",
    one_checkpoint: "recovery: one checkpoint damaged",
    superblock_copies: "recovery: one superblock damaged",
    unsure_kept: "changes cut off and there afterwards",
    unsure_lost: "changes cut off and not there",
    imports: "models imported",
    imports_in_batches: "models imported in several batches",
    imports_cut_off: "imports cut off",
    replacements: "models replaced",
    deltas: "tensors stored as differences",
    opaque_deltas: "deltas stored as such",
    reads: "models and weights read on the way",
    reads_failed: "reads that a fault ended",
    removals: "models removed",
    bases_kept: "tensors kept by a removal",
    refusals: "deletions refused: in use",
    collections: "collections",
    collections_cut_off: "collections cut off",
    collected_tensors: "tensors collected",
    collected_chunks: "chunks collected",
    rebased: "tensors stored anew without their base",
    unreachable: "unreachable chunks found after a loss",
    verifications: "verifications on the way",
    resumed: "verifications in parts",
    compactions: "compactions finished",
    values_moved: "values moved by compaction",
    closings: "stores closed",
}

/// What so few seeds as a short run has need not meet.
pub(crate) const RARE: [&str; 8] = [
    "unreachable chunks found after a loss",
    "chunks collected",
    "recovery: one checkpoint damaged",
    "recovery: one superblock damaged",
    "recovery: unfinished files removed",
    "opens that a fault cut off",
    "reads that a fault ended",
    "no space",
];

impl Counts {
    /// What an opening found.
    pub(crate) fn add_recovery(&mut self, report: &RecoveryReport) {
        let damaged = |structure| {
            let mut damage = report.damage.iter();
            damage.any(|damage| damage.structure == structure)
        };
        self.created += u64::from(report.created);
        self.clean += u64::from(report.clean);
        self.batches_replayed += report.batches_replayed;
        self.tails_taken += report.tail_batches_taken;
        self.tails_discarded += report.tail_batches_discarded;
        self.files_removed += report.files_removed;
        // A disk that admits its faults spares one of two checkpoints.
        assert!(!report.without_checkpoint, "{report:?}");
        self.one_checkpoint += u64::from(damaged("checkpoint"));
        self.superblock_copies += u64::from(damaged("superblock"));
    }
}
