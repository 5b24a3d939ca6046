//! What can be done to a pool.

use proptest::prelude::*;

/// One call. Numbers choose among what there is, modulo how much of it there is.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Match {
        chain: usize,
        blocks: usize,
    },
    Allocate {
        blocks: usize,
    },
    /// Completes a batch of taken blocks as part of a chain, and registers it.
    Register {
        batch: usize,
        chain: usize,
        from: usize,
    },
    /// Completes a batch and thinks again.
    Reopen {
        batch: usize,
        chain: usize,
    },
    DropTaken {
        batch: usize,
    },
    SplitTaken {
        batch: usize,
        at: usize,
    },
    DropUsed {
        batch: usize,
    },
    CloneUsed {
        batch: usize,
    },
    SplitUsed {
        batch: usize,
        at: usize,
    },
    /// Takes one block of a batch, and drops the batch.
    Single {
        batch: usize,
        index: usize,
    },
    Downgrade {
        batch: usize,
    },
    Upgrade {
        weak: usize,
    },
    Touch {
        chain: usize,
        blocks: usize,
    },
    Remove {
        chain: usize,
        blocks: usize,
    },
    Reset,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let n = || 0usize..8;
    prop_oneof![
        4 => (n(), 1usize..8).prop_map(|(chain, blocks)| Step::Match { chain, blocks }),
        4 => (0usize..9).prop_map(|blocks| Step::Allocate { blocks }),
        5 => (n(), n(), 0usize..4)
            .prop_map(|(batch, chain, from)| Step::Register { batch, chain, from }),
        1 => (n(), n()).prop_map(|(batch, chain)| Step::Reopen { batch, chain }),
        1 => n().prop_map(|batch| Step::DropTaken { batch }),
        1 => (n(), n()).prop_map(|(batch, at)| Step::SplitTaken { batch, at }),
        5 => n().prop_map(|batch| Step::DropUsed { batch }),
        1 => n().prop_map(|batch| Step::CloneUsed { batch }),
        1 => (n(), n()).prop_map(|(batch, at)| Step::SplitUsed { batch, at }),
        1 => (n(), n()).prop_map(|(batch, index)| Step::Single { batch, index }),
        1 => n().prop_map(|batch| Step::Downgrade { batch }),
        1 => n().prop_map(|weak| Step::Upgrade { weak }),
        1 => (n(), 1usize..8).prop_map(|(chain, blocks)| Step::Touch { chain, blocks }),
        1 => (n(), 1usize..8).prop_map(|(chain, blocks)| Step::Remove { chain, blocks }),
        1 => Just(Step::Reset),
    ]
}
