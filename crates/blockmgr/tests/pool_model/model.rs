//! A pool as one would write it down: one list of blocks, searched from end to end.

use blockmgr::{Duplicates, SequenceHash};

#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) id: usize,
    pub(crate) hash: SequenceHash,
    pub(crate) users: usize,
    /// Can be matched.
    pub(crate) primary: bool,
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) capacity: usize,
    pub(crate) free: usize,
    pub(crate) taken: usize,
    duplicates: Duplicates,
    /// Registered blocks; those without users stand in the order in which they are to leave.
    pub(crate) blocks: Vec<Block>,
    next_id: usize,
}

impl Model {
    pub(crate) fn new(capacity: usize, duplicates: Duplicates) -> Self {
        Self {
            capacity,
            free: capacity,
            taken: 0,
            duplicates,
            blocks: Vec::new(),
            next_id: 0,
        }
    }

    pub(crate) fn cached(&self) -> usize {
        self.blocks.iter().filter(|block| block.users == 0).count()
    }

    pub(crate) fn find(&self, hash: SequenceHash) -> Option<usize> {
        let same = |block: &&Block| block.primary && block.hash == hash;
        self.blocks.iter().find(same).map(|block| block.id)
    }

    pub(crate) fn block(&mut self, id: usize) -> &mut Block {
        self.blocks.iter_mut().find(|block| block.id == id).unwrap()
    }

    pub(crate) fn match_prefix(&mut self, hashes: &[SequenceHash]) -> Vec<usize> {
        let mut found = Vec::new();
        for &hash in hashes {
            let Some(id) = self.find(hash) else { break };
            self.block(id).users += 1;
            found.push(id);
        }
        found
    }

    /// The hashes of those that leave, in order, when `count` blocks are taken; `None` if there are too few.
    pub(crate) fn leaving(&self, count: usize) -> Option<Vec<SequenceHash>> {
        let evictions = count.saturating_sub(self.free);
        let idle = self.blocks.iter().filter(|block| block.users == 0);
        let leaving: Vec<_> = idle.take(evictions).map(|block| block.hash).collect();
        (leaving.len() == evictions).then_some(leaving)
    }

    /// Takes `count` blocks in the place of free ones and of these.
    pub(crate) fn take(&mut self, count: usize, leaving: &[SequenceHash]) {
        for &hash in leaving {
            self.forget(hash);
        }
        self.free -= count;
        self.taken += count;
    }

    /// A block without users leaves.
    pub(crate) fn forget(&mut self, hash: SequenceHash) {
        let id = self.find(hash).unwrap();
        assert_eq!(self.block(id).users, 0, "{hash} is in use");
        self.blocks.retain(|block| block.id != id);
        self.free += 1;
    }

    pub(crate) fn give_back(&mut self, count: usize) {
        self.taken -= count;
        self.free += count;
    }

    pub(crate) fn register(&mut self, hashes: &[SequenceHash]) -> Vec<usize> {
        self.taken -= hashes.len();
        let present: Vec<bool> = (0..hashes.len())
            .map(|i| self.find(hashes[i]).is_some() || hashes[..i].contains(&hashes[i]))
            .collect();
        let mut ids = Vec::new();
        for (&hash, present) in hashes.iter().zip(present) {
            if present && self.duplicates == Duplicates::Reject {
                let id = self.find(hash).unwrap();
                self.block(id).users += 1;
                self.free += 1;
                ids.push(id);
                continue;
            }
            self.next_id += 1;
            self.blocks.push(Block {
                id: self.next_id,
                hash,
                users: 1,
                primary: !present,
            });
            ids.push(self.next_id);
        }
        ids
    }

    pub(crate) fn release(&mut self, ids: &[usize]) {
        for &id in ids.iter().rev() {
            let block = self.block(id);
            block.users -= 1;
            if block.users > 0 {
                continue;
            }
            let mut block = block.clone();
            self.blocks.retain(|other| other.id != id);
            if !block.primary && self.find(block.hash).is_some() {
                self.free += 1;
                continue;
            }
            block.primary = true;
            self.blocks.push(block);
        }
    }

    pub(crate) fn touch(&mut self, hashes: &[SequenceHash]) -> usize {
        let found: Vec<_> = hashes
            .iter()
            .rev()
            .filter_map(|&hash| self.find(hash))
            .collect();
        for &id in &found {
            self.block(id).users += 1;
            self.release(&[id]);
        }
        found.len()
    }

    pub(crate) fn remove(&mut self, hashes: &[SequenceHash]) -> usize {
        let mut removed = 0;
        for &hash in hashes {
            if self.find(hash).is_some_and(|id| self.block(id).users == 0) {
                self.forget(hash);
                removed += 1;
            }
        }
        removed
    }

    pub(crate) fn reset(&mut self) -> usize {
        let cached = self.cached();
        self.blocks.retain(|block| block.users > 0);
        self.free += cached;
        cached
    }
}
