//! Kills `stepwell kv replay` while it takes blocks to its disk tier, and looks at what it leaves.
//!
//! The program notes in a file when a block's move to the disk begins and when it is acknowledged, and the same of
//! removals; what it wrote to the file outlives it. After each kill every acknowledged block has to match and to have
//! the bytes that its identity says. What else matches has to be a block that was being stored or removed when
//! the kill came: durable, and not yet acknowledged. Nothing that was never on its way to the disk may match.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockmgr::layout::LayoutConfig;
use blockmgr::movement::TieredCache;
use blockmgr::replay::Replay;
use blockmgr::{BlockPool, RequestOptions, Salt, SequenceHash};
use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::contract::{BlockStore, HostTier};
use tier_nvme::{BlockSlab, SlabConfig};

use crate::models::Random;
use crate::parent::KILLS_PER_CLOSE;
use crate::victim::{self, OPEN_MAX, Victim};

const BLOCK_BYTES: usize = 8 << 10;
/// Blocks of the tiers; the disk's are so few that blocks leave it all the time.
const TIERS: [usize; 3] = [48, 32, 400];
/// What the program salts blocks with unless it is told otherwise.
const MODEL: &str = "replay";

/// Requests of a life, more than it comes to.
const REQUESTS: u64 = 4000;
/// Conversations that go on are of the last ones.
const RECENT: u64 = 100;
/// Blocks that all conversations of a family begin with.
const SHARED: u64 = 4;

/// Longest time that the program works before its moment comes.
const DELAY_MAX_US: u64 = 60_000;
/// How long a store under way is waited for before any moment will do.
const PATIENCE: Duration = Duration::from_millis(200);

/// What the kills met.
#[derive(Debug, Default)]
struct Tally {
    /// Kills with blocks on their way to the disk, and with blocks on their way off it.
    storing: u64,
    removing: u64,
    neither: u64,
    acknowledged: u64,
    removed: u64,
    verified: u64,
    /// Blocks under way that were found, and that were not.
    undecided: [u64; 2],
    reopened_clean: u64,
}

/// What must be on the disk, and what may be.
#[derive(Debug, Default)]
struct Expectation {
    there: BTreeSet<u128>,
    open: BTreeSet<u128>,
    /// Of all blocks that ever were on their way.
    positions: BTreeMap<u128, u32>,
}

/// The conversations so far, and how many blocks each has.
#[derive(Debug, Default)]
struct Conversations(Vec<u64>);

pub(crate) fn run(kills: u64, seed: u64) {
    let folder = victim::folder("kill-blocks-");
    let folder = folder.path();
    let mut random = Random::new(seed);
    let mut conversations = Conversations::default();
    let mut expectation = Expectation::default();
    let mut tally = Tally::default();
    for kill in 1..=kills {
        conversations.write_trace(&folder.join("trace.jsonl"), &mut random);
        let delay = Duration::from_micros(random.below(DELAY_MAX_US));
        // Where moments at random meet too few stores, some are moved to one.
        let aimed = 2 * tally.neither + 2 >= kill;
        let notes = live(folder, delay, aimed);
        expectation.hear(&notes, &mut tally);
        // What one opening recovers, the next finds done: most are left for the next process.
        let read_only = !kill.is_multiple_of(KILLS_PER_CLOSE);
        check(
            &folder.join("tier"),
            read_only,
            &mut expectation,
            &mut tally,
        );
    }
    print(kills, seed, &expectation, &tally);
    assert!(
        2 * tally.neither <= kills,
        "{} of {kills} kills met no block under way",
        tally.neither
    );
    assert!(tally.acknowledged >= kills && tally.verified >= kills);
    assert!(kills < KILLS_PER_CLOSE || tally.removed > 0, "{tally:?}");
}

impl Conversations {
    /// Requests of new conversations and of some that go on.
    fn write_trace(&mut self, path: &Path, random: &mut Random) {
        let mut lines = String::new();
        for number in 0..REQUESTS {
            let count = self.0.len() as u64;
            let conversation = if count > 0 && random.below(3) == 0 {
                count - 1 - random.below(count.min(RECENT))
            } else {
                self.0.push(2);
                count
            };
            let blocks = &mut self.0[conversation as usize];
            *blocks = (*blocks + 1 + random.below(8)).min(30);
            let shared = conversation % 3 * SHARED;
            let own = 1000 * (conversation + 1);
            let ids: Vec<u64> = (shared..shared + SHARED)
                .chain(own..own + *blocks)
                .collect();
            writeln!(
                lines,
                r#"{{"timestamp": {number}, "input_length": 9, "output_length": 1, "hash_ids": {ids:?}}}"#
            )
            .unwrap();
        }
        std::fs::write(path, lines).unwrap();
    }
}

/// Lets the program work, and kills it so long after its first acknowledgement, or then when a store is under way.
/// What it noted.
fn live(folder: &Path, delay: Duration, aimed: bool) -> String {
    let noted = folder.join("notes");
    drop(std::fs::remove_file(&noted));
    let notes = || std::fs::read_to_string(&noted).unwrap_or_default();
    let victim = Victim::start(&mut program(folder), "");
    wait_until(OPEN_MAX, || notes().contains("stored "));
    std::thread::sleep(delay);
    if aimed {
        wait_until(PATIENCE, || {
            let notes = notes();
            let last = notes.lines().last().unwrap_or_default();
            last.starts_with("began ")
        });
    }
    victim.kill();
    notes()
}

fn wait_until(most: Duration, is_time: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_time() && started.elapsed() < most {
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn program(folder: &Path) -> Command {
    let [g1, g2, g3] = TIERS.map(|blocks| blocks.to_string());
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepwell"));
    command
        .args(["--json", "kv", "replay"])
        .args(["--g1", &g1, "--g2", &g2, "--g3", &g3])
        .args(["--block-bytes", &BLOCK_BYTES.to_string(), "--trace"])
        .arg(folder.join("trace.jsonl"))
        .arg("--dir")
        .arg(folder.join("tier"))
        .arg("--acknowledgements")
        .arg(folder.join("notes"))
        .stdin(Stdio::null());
    command
}

impl Expectation {
    /// Takes in what a life noted; the last line may be cut off.
    fn hear(&mut self, notes: &str, tally: &mut Tally) {
        let whole = notes.rfind('\n').map_or("", |end| &notes[..end]);
        let (mut storing, mut removing) = (BTreeSet::new(), BTreeSet::new());
        for line in whole.lines() {
            let (what, place) = line.split_once(' ').unwrap();
            let (position, hash) = place.split_once(':').unwrap();
            let hash = u128::from_str_radix(hash, 16).unwrap();
            match what {
                "began" => {
                    self.positions.insert(hash, position.parse().unwrap());
                    storing.insert(hash);
                    // One that is there is replaced by itself.
                    if !self.there.contains(&hash) {
                        self.open.insert(hash);
                    }
                }
                "stored" => {
                    assert!(storing.remove(&hash), "{line} without its beginning");
                    self.open.remove(&hash);
                    self.there.insert(hash);
                    tally.acknowledged += 1;
                }
                "removing" => {
                    removing.insert(hash);
                    self.there.remove(&hash);
                    self.open.insert(hash);
                }
                "removed" => {
                    assert!(removing.remove(&hash), "{line} without its beginning");
                    self.open.remove(&hash);
                    tally.removed += 1;
                }
                _ => panic!("the program noted {line:?}"),
            }
        }
        tally.storing += u64::from(!storing.is_empty());
        tally.removing += u64::from(!removing.is_empty());
        tally.neither += u64::from(storing.is_empty() && removing.is_empty());
    }

    /// Takes in what is there after a kill; one who waited for what the killed process had in flight decides it.
    fn settle(&mut self, found: &BTreeSet<u128>, decided: bool, tally: &mut Tally) {
        let lost: Vec<_> = self.there.difference(found).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:x?}");
        let strange = found.difference(&self.there);
        let strange: Vec<_> = strange.filter(|hash| !self.open.contains(hash)).collect();
        assert!(
            strange.is_empty(),
            "matched and never on their way: {strange:x?}"
        );
        if decided {
            tally.undecided[0] += self.open.intersection(found).count() as u64;
            tally.undecided[1] += self.open.difference(found).count() as u64;
            self.there.clone_from(found);
            self.open.clear();
        }
    }
}

/// Opens the tier as the program does, and brings every block up, checked.
fn check(dir: &Path, read_only: bool, expectation: &mut Expectation, tally: &mut Tally) {
    let config = SlabConfig::default()
        .with_block_bytes(BLOCK_BYTES as u64)
        .with_capacity_bytes(2 << 30)
        .with_create(false)
        .with_read_only(read_only);
    let slab = Arc::new(BlockSlab::open(dir, config).unwrap());
    let found: BTreeSet<u128> = slab
        .list(None, usize::MAX)
        .unwrap()
        .iter()
        .map(|entry| entry.key.0)
        .collect();
    expectation.settle(&found, !read_only, tally);
    let layout = LayoutConfig::builder()
        .num_blocks(1)
        .num_layers(1)
        .outer_dim(1)
        .page_size(1)
        .inner_dim(BLOCK_BYTES)
        .dtype_bytes(1)
        .build()
        .unwrap();
    let pool = || BlockPool::builder().capacity_blocks(TIERS[0]);
    let memory = SystemAllocator.allocate(TIERS[0] * BLOCK_BYTES).unwrap();
    let memory = HostTier::new(memory, BLOCK_BYTES).unwrap();
    let disk = Arc::clone(&slab) as Arc<dyn BlockStore>;
    let cache = TieredCache::builder(&layout, Salt::new(MODEL))
        .device(Arc::new(memory), pool().build().unwrap())
        .disk(disk, pool().capacity_blocks(TIERS[2]))
        .build()
        .unwrap();
    let reopened = cache.reopened().unwrap();
    assert_eq!(
        (reopened.restored_blocks, reopened.surplus_blocks),
        (found.len() as u64, 0)
    );
    assert!(reopened.ignored.is_empty(), "{reopened:?}");
    let hashes: Vec<SequenceHash> = found
        .iter()
        .map(|&hash| SequenceHash::new(hash, expectation.positions[&hash]))
        .collect();
    let mut replay = Replay::new(&cache, Salt::new(MODEL));
    for hashes in hashes.chunks(TIERS[0]) {
        let matched = cache.match_blocks(hashes, &RequestOptions::default());
        assert_eq!(matched.blocks.len(), hashes.len(), "{:?}", cache.traffic());
        replay.check(&matched.blocks).unwrap();
    }
    assert_eq!(replay.counts().mismatched_blocks, 0);
    assert!(cache.traffic().mismatches.is_empty());
    tally.verified += replay.counts().verified_blocks;
    tally.reopened_clean += u64::from(slab.recovery_report().clean);
    drop(cache);
    slab.close().unwrap();
}

fn print(kills: u64, seed: u64, expectation: &Expectation, tally: &Tally) {
    println!(
        "{kills} kills of kv replay, seed {seed}: {} with blocks being stored, {} with blocks being removed, {} with \
         neither",
        tally.storing, tally.removing, tally.neither
    );
    println!(
        "  {} blocks acknowledged, {} removed, {} there at the end; {} verified bit for bit after kills",
        tally.acknowledged,
        tally.removed,
        expectation.there.len(),
        tally.verified
    );
    println!(
        "  of the blocks under way, {} were found and {} not; {} opens had nothing to do",
        tally.undecided[0], tally.undecided[1], tally.reopened_clean
    );
}
