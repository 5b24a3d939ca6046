//! Batches that are written once more after a recovery discarded them.

use core_view::BufferMut;
use core_view::contract::Transfer;
use tier_nvme::sim::{FaultRates, Random, Seeds, SimVolume, Survival};
use tier_nvme::{NvmeStore, StorageConfig, WriteBatch};

use super::{Changes, Doubt, REPLAY, Simulation};

impl Simulation<'_> {
    /// Lets the power fail with a few small batches under way, and then writes those that are gone again, the
    /// same bytes to the same places: what lies behind them from before must not come back.
    pub(super) fn write_again(&mut self) {
        // A store that failed would take none of them, and faults would only make fewer of them alike.
        self.volume.set_faults(FaultRates::default());
        self.volume.set_capacity(u64::MAX);
        self.bounded = false;
        let batches: Vec<Changes> = (0..2 + self.random.below(2))
            .map(|_| self.small_changes())
            .collect();
        let before = self.model.clone();
        let under_way: Vec<_> = batches.iter().map(|changes| self.begin(changes)).collect();
        let mut doubt = Doubt::Alone;
        for (changes, write) in batches.iter().zip(under_way) {
            drop(write);
            self.doubt(changes, doubt);
            doubt = Doubt::Behind;
        }
        self.lose_power(None);
        self.branches.tails_left += u64::from(self.discarded() > 1);
        if self.model != before {
            return;
        }
        let again = 1 + self.random.below(batches.len() as u64 - 1) as usize;
        for changes in &batches[..again] {
            let outcome = self.begin(changes).wait();
            let outcome = outcome.map_err(|failure| failure.kind());
            if !self.note(changes, outcome) {
                break;
            }
        }
        self.branches.written_again += u64::from(self.model != before);
        self.lose_power(Some(Survival::Everything));
    }

    fn small_changes(&mut self) -> Changes {
        let key = format!("key-{}", self.random.below(24)).into_bytes();
        let mut value = vec![0; 1 + self.random.below(100) as usize];
        self.random.fill(&mut value);
        vec![(key, Some(value))]
    }

    /// Hands a batch over and has it written, but not synced.
    fn begin(&self, changes: &Changes) -> Transfer<()> {
        let put = |batch: WriteBatch, (key, value): &(Vec<u8>, Option<Vec<u8>>)| {
            batch.put(key.clone(), value.clone().unwrap_or_default())
        };
        let store = self.store.as_ref().unwrap();
        let write = store.write_batch_async(changes.iter().fold(WriteBatch::new(), put));
        store.step();
        write
    }

    fn lose_power(&mut self, survival: Option<Survival>) {
        match survival {
            Some(survival) => self.volume.crash_keeping(survival),
            None => self.volume.crash(),
        }
        self.store = None;
        self.open();
    }

    fn discarded(&self) -> u64 {
        let store = self.store.as_ref().unwrap();
        store.recovery_report().tail_batches_discarded
    }
}

/// What a long tail came to.
#[derive(Debug, Default)]
struct Tails {
    lost: u64,
    /// Of those, with a header behind the one that was torn.
    followed: u64,
    /// Of those, with that header still there after the recovery.
    left_behind: u64,
    kept: u64,
}

/// Pages of batches that are whole in front and name this sequence.
fn headers_of(volume: &SimVolume, sequence: u64) -> usize {
    let files = volume.files().into_iter();
    let segments = files.filter(|(name, _)| name.starts_with("SEGMENT"));
    let count = |bytes: Vec<u8>| {
        let is_header =
            |page: &&[u8]| page.starts_with(b"STEPBTCH") && page[40..48] == sequence.to_le_bytes();
        bytes.chunks(4096).filter(is_header).count()
    };
    segments
        .map(|(name, _)| count(volume.bytes_of(&name).unwrap()))
        .sum()
}

/// Leaves small batches behind one that is longer than what a recovery clears behind the end of the log.
fn leave_long_tail(seed: u64, tails: &mut Tails) {
    let volume = SimVolume::new(seed);
    let mut random = Random::new(seed ^ 0x7a11);
    let open = || {
        let config = StorageConfig::default()
            .with_segment_bytes(16 << 20)
            .with_background(false);
        NvmeStore::on_volume(volume.handle(), config).unwrap()
    };
    let store = open();
    for key in 0..random.below(3) {
        store.write_aligned(format!("before {key}"), b"x").unwrap();
    }
    let before = store.keys_with_prefix("");
    let sequence = before.len() as u64;
    let len_bytes = (4 << 20) + random.below(1 << 20) as usize;
    let tag = random.next_u64();
    let long = || {
        let mut value = BufferMut::zeroed(len_bytes, 4096).unwrap();
        for (i, sector) in value.chunks_mut(512).enumerate() {
            sector[0] = tag.wrapping_add(i as u64) as u8 | 1;
        }
        WriteBatch::new().put("long", value)
    };
    let small = |key: u64| WriteBatch::new().put(format!("small {key}"), vec![1; 100]);
    let mut under_way = vec![store.write_batch_async(long())];
    store.step();
    for key in 0..1 + random.below(3) {
        under_way.push(store.write_batch_async(small(key)));
        store.step();
    }
    volume.crash();
    drop((under_way, store));
    let left = headers_of(&volume, sequence + 2);
    let store = open();
    if store.len() > sequence {
        tails.kept += 1;
        return;
    }
    tails.lost += 1;
    tails.followed += u64::from(left > 0);
    tails.left_behind += u64::from(headers_of(&volume, sequence + 2) > 0);
    store.write_batch(long()).unwrap();
    volume.crash_keeping(Survival::Everything);
    drop(store);
    let mut expected = before;
    expected.push(b"long".to_vec());
    assert_eq!(
        open().keys_with_prefix(""),
        expected,
        "what was discarded is back"
    );
}

#[test]
fn a_discarded_tail_stays_away_behind_a_batch_that_is_longer_than_what_is_cleared() {
    let mut tails = Tails::default();
    let seeds = Seeds::from_environment(100);
    seeds.for_each(REPLAY, |seed| {
        // Each takes as long as several lives.
        if seed % 4 == 0 || seeds.is_replay() {
            leave_long_tail(seed, &mut tails);
        }
    });
    println!("{tails:?}");
    let few = seeds.is_replay() || seeds.count() < 100;
    assert!(few || (tails.lost > 0 && tails.followed > 0 && tails.left_behind > 0));
    assert!(few || tails.kept > 0);
}
