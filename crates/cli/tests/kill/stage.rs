//! Where a commit is, written where it outlives the process.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tier_nvme::CommitStage;

/// The stages in the order of their bytes.
pub(crate) const NAMES: [&str; 6] = ["idle", "segment", "write", "sync", "publish", "checkpoint"];

/// The byte that stands for a stage.
fn byte_of(stage: CommitStage) -> u8 {
    match stage {
        CommitStage::Idle => 0,
        CommitStage::Segment => 1,
        CommitStage::Write => 2,
        CommitStage::Sync => 3,
        CommitStage::Publish => 4,
        CommitStage::Checkpoint => 5,
        other => panic!("{other:?} has no byte"),
    }
}

/// What tells the file of each stage that a commit enters.
pub(crate) fn observer(path: &Path) -> impl Fn(CommitStage) + Send + Sync + 'static {
    let file = File::create(path).unwrap();
    file.write_all_at(&[0], 0).unwrap();
    move |stage| file.write_all_at(&[byte_of(stage)], 0).unwrap()
}

/// The stage that the file was last told of.
pub(crate) fn read(path: &Path) -> usize {
    std::fs::read(path)
        .unwrap()
        .first()
        .copied()
        .unwrap()
        .into()
}
