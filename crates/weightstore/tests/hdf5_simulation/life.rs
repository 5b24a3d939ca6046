//! One life of a file: changes and commits until the power fails, and again.

use tier_nvme::FileName;
use tier_nvme::sim::{FaultCounts, FaultRates, Random, SimVolume};
use weightstore::{
    Hdf5Compression, Hdf5Config, Hdf5Mode, Hdf5Store, WeightError, WeightStore, WeightTensor,
};

use crate::content::{Content, WEIGHTS, content, delta, weight};
use crate::simulation::{OPERATIONS, counts};

counts! {
    operations: "operations",
    reopens: "reopens after a loss",
    refused_opens: "opens that a fault cut off",
    absent: "losses before there was a file",
    commits: "commits",
    cut_off: "commits cut off",
    dropped: "stores dropped with changes",
    old: "commits cut off that left the old file",
    new: "commits cut off that left the new one",
    unfinished: "unfinished files left beside it",
    deltas: "deltas stored",
    refusals: "deletions refused: in use",
    foreign: "changes of another program",
    foreign_refused: "commits over those refused",
    reads: "contents read on the way",
    closings: "stores closed",
    anew: "files made anew",
}

const UNFINISHED: &str = "weights.h5.new";

/// How the datasets of the next file are compressed.
fn compression(random: &mut Random) -> Hdf5Compression {
    match random.below(4) {
        0 => Hdf5Compression::None,
        1 => Hdf5Compression::Lzf,
        _ => Hdf5Compression::Gzip { level: 1 },
    }
}

fn open(
    volume: &SimVolume,
    mode: Hdf5Mode,
    compression: Hdf5Compression,
) -> Result<Hdf5Store, WeightError> {
    let config = Hdf5Config::default()
        .with_compression(compression)
        .with_mode(mode);
    let name = FileName::new("weights.h5").unwrap();
    Hdf5Store::on_volume(volume.handle(), name, config)
}

/// How a life goes on after an operation.
enum Step {
    Next,
    /// Another program has changed the file.
    Foreign,
    Closed,
}

/// What is in the file, and what a life makes of it.
struct Life<'a> {
    volume: &'a SimVolume,
    random: &'a mut Random,
    counts: &'a mut Counts,
    /// By the last commit that was acknowledged.
    committed: Content,
    /// What the store has.
    staged: Content,
    /// Whether the store has changed since.
    changed: bool,
    /// What commits that were not acknowledged would have made of the file.
    possible: Vec<Content>,
}

fn prepare(volume: &SimVolume, random: &mut Random) {
    volume.fail_power_after(random.below(120));
    let one_in = |random: &mut Random, count| u32::from(random.below(count) == 0);
    if random.below(8) == 0 {
        let used: u64 = volume.files().iter().map(|(_, len)| len).sum();
        volume.set_capacity(used + random.below(1 << 20));
    }
    volume.set_faults(FaultRates {
        read_errors: 2 * one_in(random, 6),
        write_errors: 120 * one_in(random, 4),
        sync_errors: 30 * one_in(random, 4),
        short_transfers: 30 * one_in(random, 4),
        interruptions: 30 * one_in(random, 4),
        ..FaultRates::default()
    });
}

pub(crate) fn run(seed: u64) -> (Counts, FaultCounts) {
    let volume = SimVolume::new(seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let mut counts = Counts::default();
    let mut committed = Content::new();
    while counts.operations < OPERATIONS {
        prepare(&volume, &mut random);
        let mut life = Life {
            volume: &volume,
            random: &mut random,
            counts: &mut counts,
            staged: committed.clone(),
            committed,
            changed: false,
            possible: Vec::new(),
        };
        life.live();
        let (before, possible) = (life.committed, life.possible);
        volume.crash();
        volume.set_faults(FaultRates::default());
        volume.set_capacity(u64::MAX);
        counts.reopens += 1;
        let left = volume.files();
        counts.unfinished += u64::from(left.iter().any(|(name, _)| name == UNFINISHED));
        committed = settle(&volume, before, &possible, &mut counts);
    }
    (counts, volume.counts())
}

/// What is in the file is what was acknowledged, or what was possible besides.
fn settle(
    volume: &SimVolume,
    before: Content,
    possible: &[Content],
    counts: &mut Counts,
) -> Content {
    let found = match open(volume, Hdf5Mode::Read, Hdf5Compression::None) {
        Ok(store) => content(&store).unwrap(),
        Err(error) => {
            assert!(before.is_empty(), "{error:?}");
            counts.absent += 1;
            return before;
        }
    };
    let is_old = found == before;
    let is_new = possible.contains(&found);
    assert!(is_old || is_new, "neither old nor new");
    if possible.iter().any(|possible| *possible != before) {
        counts.old += u64::from(is_old);
        counts.new += u64::from(!is_old);
    }
    found
}

impl Life<'_> {
    fn live(&mut self) {
        let anew = self.random.below(8) == 0;
        let mode = if anew {
            Hdf5Mode::Write
        } else {
            Hdf5Mode::Append
        };
        let Ok(store) = open(self.volume, mode, compression(self.random)) else {
            self.counts.refused_opens += 1;
            return;
        };
        if anew {
            // The file is replaced by the first commit, whatever is in it by then.
            self.counts.anew += 1;
            self.staged.clear();
            self.changed = true;
            if self.commit(&store).is_err() {
                return;
            }
        }
        while self.counts.operations < OPERATIONS {
            self.counts.operations += 1;
            match self.step(&store) {
                Ok(Step::Next) => {}
                Ok(Step::Foreign) => return self.refuse(&store),
                Ok(Step::Closed) => return,
                Err(_) => break,
            }
        }
        // Dropping the store commits what is left, if there is power.
        if self.volume.has_power() && self.changed {
            self.possible.push(self.staged.clone());
            self.counts.dropped += 1;
        }
    }

    /// A commit now would undo what another program did.
    fn refuse(&mut self, store: &Hdf5Store) {
        if self.changed {
            let refused = store.commit();
            assert!(refused.is_err(), "it wrote over another program's file");
            let seen = matches!(refused, Err(WeightError::SourceChanged { .. }));
            self.counts.foreign_refused += u64::from(seen);
        }
    }

    /// One change, commit or look.
    fn step(&mut self, store: &Hdf5Store) -> Result<Step, WeightError> {
        let number = self.random.below(WEIGHTS);
        match self.random.below(32) {
            0..=6 => self.commit(store)?,
            7..=12 => self.delete(store, number)?,
            13..=15 => {
                let delta = delta(number);
                let id = store.store_delta(&delta, None)?;
                self.changed |= self.staged.insert(id, delta.payload().to_vec()).is_none();
                self.counts.deltas += 1;
            }
            16 => {
                let id = delta(number).compute_hash();
                let was_there = store.delete_delta(&id)?;
                assert_eq!(was_there, self.staged.remove(&id).is_some());
                self.changed |= was_there;
            }
            17 => {
                assert!(content(store)? == self.staged, "it is not what was stored");
                self.counts.reads += 1;
            }
            18 if self.change_by_another()? => return Ok(Step::Foreign),
            18 => {}
            19 if self.random.below(2) == 0 => {
                self.acknowledge(store.close())?;
                self.counts.closings += 1;
                return Ok(Step::Closed);
            }
            _ => {
                let weight = weight(number);
                let hash = store.store(&weight, None)?;
                let bytes = weight.bytes().to_vec();
                self.changed |= self.staged.insert(hash, bytes).is_none();
            }
        }
        Ok(Step::Next)
    }

    fn commit(&mut self, store: &Hdf5Store) -> Result<(), WeightError> {
        self.acknowledge(store.commit())
    }

    /// What a commit says of itself: it is done, or it may be.
    fn acknowledge(&mut self, committed: Result<(), WeightError>) -> Result<(), WeightError> {
        self.possible.push(self.staged.clone());
        self.counts.cut_off += u64::from(committed.is_err());
        committed?;
        self.possible.clear();
        self.changed = false;
        self.committed = self.staged.clone();
        self.counts.commits += 1;
        Ok(())
    }

    fn delete(&mut self, store: &Hdf5Store, number: u64) -> Result<(), WeightError> {
        let hash = weight(number).compute_hash();
        match store.delete(&hash.into()) {
            Ok(was_there) => {
                assert_eq!(was_there, self.staged.remove(&hash).is_some());
                self.changed |= was_there;
                Ok(())
            }
            Err(WeightError::InUse { .. }) => {
                self.counts.refusals += 1;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Another store over the same file puts one weight in the place of another of the same length; whether it could.
    fn change_by_another(&mut self) -> Result<bool, WeightError> {
        let other = open(self.volume, Hdf5Mode::Append, compression(self.random))?;
        let mut after = self.committed.clone();
        let is_there =
            |content: &Content, weight: &WeightTensor| content.contains_key(&weight.compute_hash());
        let mut weights = (0..WEIGHTS).map(weight);
        let gone = weights.find(|weight| {
            let key = weight.compute_hash().into();
            is_there(&after, weight) && other.delete(&key).is_ok()
        });
        let mut weights = (0..WEIGHTS).map(weight);
        let new = weights.find(|weight| {
            let len = weight.bytes().len();
            let fits = gone.as_ref().is_none_or(|gone| gone.bytes().len() == len);
            fits && !is_there(&after, weight)
        });
        if let Some(gone) = gone {
            after.remove(&gone.compute_hash());
        }
        if let Some(new) = &new {
            after.insert(other.store(new, None)?, new.bytes().to_vec());
        }
        if after == self.committed {
            return Ok(false);
        }
        self.possible.push(after.clone());
        other.commit()?;
        self.possible.clear();
        self.committed = after;
        self.counts.foreign += 1;
        Ok(true)
    }
}
