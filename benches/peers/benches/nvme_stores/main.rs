//! The blob store beside other stores, all beside a raw loop of the same bytes, depth and syncs, in turns.
//!
//! It works in a directory of its own in `STEPWELL_NVME_DIR`, or else in the build directory. `fio` measures the
//! same reads and writes at the end where it is installed.
#![forbid(unsafe_code)]

mod fio;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use stepwell_benches::{Bench, CaseReport, Group, GroupReport};
#[cfg(feature = "rocksdb")]
use stepwell_peers::RocksdbStore;
use stepwell_peers::{FjallStore, FoyerCache, PeerContender, RedbStore};
use tier_nvme::bench::{
    Action, BenchError, Contender, RawLoop, Sample, StoreContender, Work, measure,
};

/// How much smaller the work of a quick run is.
const QUICK_DIVISOR: usize = 16;

/// Rounds unless the command line says otherwise: peers write their batches several times over.
const ROUNDS: &str = "7";

/// The name of our cases.
const STORE: &str = "stepwell";

/// Adds a contender's turns at a piece of work as a case.
fn add<'a>(
    group: &mut Group<'a>,
    contender: &'a mut dyn Contender,
    work: &'a Work,
    costs: &'a Costs,
) {
    let name = contender.name();
    let mut turn = 0;
    let cost = costs.of(&name);
    group
        .case_timed(&name, move |times| {
            (0..times)
                .map(|_| {
                    let sample = measure(contender, work, turn).unwrap_or_else(|error| {
                        panic!("{} at {}: {error}", contender.name(), work.title)
                    });
                    // The first turn also made what the others find there.
                    if turn > 0 {
                        cost.set(cost.get().with(&sample, work.turn_bytes()));
                    }
                    turn += 1;
                    sample.elapsed
                })
                .sum()
        })
        .bytes(work.turn_bytes());
}

/// What the turns of one contender used.
#[derive(Clone, Copy, Default)]
struct Cost {
    cpu: Duration,
    written_bytes: u64,
    bytes: u64,
}

impl Cost {
    fn with(self, sample: &Sample, bytes: u64) -> Self {
        Self {
            cpu: self.cpu + sample.cpu,
            written_bytes: self.written_bytes + sample.written_bytes,
            bytes: self.bytes + bytes,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes as f64;
        let cpu_s_per_gb = self.cpu.as_secs_f64() / bytes * 1e9;
        let written = self.written_bytes as f64 / bytes;
        write!(f, "{cpu_s_per_gb:.2} s/GB, {written:.2} B/B")
    }
}

/// What the turns of each used, by name. What a store does in the background of another's turn counts there.
#[derive(Default)]
struct Costs(RefCell<BTreeMap<String, Rc<Cell<Cost>>>>);

impl Costs {
    fn of(&self, name: &str) -> Rc<Cell<Cost>> {
        Rc::clone(self.0.borrow_mut().entry(name.to_owned()).or_default())
    }
}

/// How each stands to the faster raw loop at a piece of work.
struct Standing {
    title: String,
    ratios: Vec<(String, f64)>,
}

impl Standing {
    fn new(report: &GroupReport, floors: &[&String]) -> Self {
        let is_floor = |case: &&CaseReport| floors.contains(&&case.name);
        let floor_ns = report
            .cases
            .iter()
            .filter(is_floor)
            .map(|case| case.median_ns)
            .fold(f64::INFINITY, f64::min);
        let others = report.cases.iter().filter(|case| !is_floor(case));
        Self {
            title: report.title.clone(),
            ratios: others
                .map(|case| (case.name.clone(), floor_ns / case.median_ns))
                .collect(),
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<46}", self.title)?;
        self.ratios
            .iter()
            .try_for_each(|(name, ratio)| write!(f, "  {name} {ratio:.2}"))
    }
}

/// Everybody who takes turns.
struct Field {
    fresh: RawLoop,
    overwriting: RawLoop,
    store: StoreContender,
    foyer: PeerContender<FoyerCache>,
    fjall: PeerContender<FjallStore>,
    redb: PeerContender<RedbStore>,
    #[cfg(feature = "rocksdb")]
    rocksdb: PeerContender<RocksdbStore>,
}

impl Field {
    fn new(path: &Path) -> Result<Self, BenchError> {
        Ok(Self {
            fresh: RawLoop::fresh(path)?,
            overwriting: RawLoop::overwriting(path)?,
            store: StoreContender::create(&path.join("store"))?,
            foyer: PeerContender::new(path),
            fjall: PeerContender::new(path),
            redb: PeerContender::new(path),
            #[cfg(feature = "rocksdb")]
            rocksdb: PeerContender::new(path),
        })
    }

    /// Lets all take turns, and tells how each stands to the faster raw loop.
    fn run(&mut self, bench: &mut Bench, work: &Work) -> Result<Standing, BenchError> {
        let (fresh, overwriting) = (self.fresh.name(), self.overwriting.name());
        let costs = Costs::default();
        let mut group = bench.group(work.title);
        add(&mut group, &mut self.overwriting, work, &costs);
        if work.action == Action::Put {
            add(&mut group, &mut self.fresh, work, &costs);
        }
        add(&mut group, &mut self.store, work, &costs);
        add(&mut group, &mut self.foyer, work, &costs);
        add(&mut group, &mut self.fjall, work, &costs);
        add(&mut group, &mut self.redb, work, &costs);
        #[cfg(feature = "rocksdb")]
        add(&mut group, &mut self.rocksdb, work, &costs);
        if let Some(least) = work.ratio_min {
            group.bar_at_least(work.title, STORE, &overwriting, least);
            if work.action == Action::Put {
                group.bar_at_least(work.title, STORE, &fresh, least);
            }
        }
        let standing = Standing::new(&group.run(), &[&fresh, &overwriting]);
        if work.action == Action::Put {
            println!("  processor seconds per GB put, bytes written per byte put:");
            let costs = costs.0.borrow();
            costs
                .iter()
                .for_each(|(name, cost)| println!("    {name:<26} {}", cost.get()));
            println!();
        }
        self.foyer.clear()?;
        self.fjall.clear()?;
        self.redb.clear()?;
        #[cfg(feature = "rocksdb")]
        self.rocksdb.clear()?;
        Ok(standing)
    }
}

fn main() -> Result<ExitCode, BenchError> {
    let mut bench = Bench::from_args_or("nvme_stores", &["--rounds", ROUNDS, "--round-ms", "1"]);
    let parent =
        std::env::var_os("STEPWELL_NVME_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let folder = tempfile::Builder::new()
        .prefix("peers-")
        .tempdir_in(parent)?;
    let mut field = Field::new(folder.path())?;
    let mut standings = Vec::new();
    for work in Work::ALL {
        let work = match bench.settings().is_quick() {
            true => work.reduced(QUICK_DIVISOR),
            false => work,
        };
        if bench.settings().selects(work.title) {
            standings.push(field.run(&mut bench, &work)?);
        }
    }
    standings.iter().for_each(|standing| println!("{standing}"));
    drop(field);
    if !bench.settings().is_quick() {
        fio::run(folder.path())?;
    }
    folder.close()?;
    // How we stand against our bars is judged by our own benches.
    bench.finish();
    Ok(ExitCode::SUCCESS)
}
