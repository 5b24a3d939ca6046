//! The block pool beside `kvbm-logical`, at the replay of a trace: each request matches the leading blocks that the
//! pool has, allocates and registers the rest, and lets go of all of them.
//!
//! `STEPWELL_DATA` names the directory of `mooncake_conversation_trace.jsonl`; without it a made trace is replayed. The
//! two take turns, pass by pass, on one thread and on two; each pass begins with an empty pool. `--rounds N` sets the
//! number of passes.
#![forbid(unsafe_code)]

mod contender;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use blockmgr::trace::TraceReader;
use contender::{CALLS, Contender, Ours, Tally, Theirs, Work};
use rustix::time::{ClockId, clock_gettime};

/// Blocks of each pool.
const CAPACITY_BLOCKS: usize = 10_000;

/// Blocks matched while all of them are in use, and how often.
const ACTIVE_BLOCKS: u64 = 128;
const ACTIVE_TIMES: u64 = 2000;

/// Passes unless the command line says otherwise.
const ROUNDS: usize = 9;

/// Our share of the peer's time, at most; and the speed-up by a second thread, at least.
const SHARE_MAX: f64 = 0.5;
const SCALING_MIN: f64 = 1.7;

/// What a pass took.
#[derive(Clone, Default)]
struct Pass {
    tally: Tally,
    /// Blocks a second of processor time of the busiest thread, and of wall time.
    cpu_blocks_s: f64,
    wall_blocks_s: f64,
}

/// The time that the calling thread spent on a processor.
fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Replays all of the work on some threads, which take request after request.
fn pass(contender: &dyn Contender, work: &[Work], threads: usize) -> Pass {
    let next = AtomicUsize::new(0);
    let thread = || {
        let start = cpu_time();
        let mut tally = Tally::default();
        while let Some(work) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
            contender.replay(work, &mut tally);
        }
        (cpu_time() - start, tally)
    };
    let start = Instant::now();
    let ends: Vec<(Duration, Tally)> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(thread)).collect();
        let ends = handles.into_iter().map(|handle| handle.join());
        ends.map(|end| end.expect("a thread ends")).collect()
    });
    let wall = start.elapsed();
    let busiest = ends.iter().map(|end| end.0).max().unwrap_or_default();
    let tally = ends
        .iter()
        .fold(Tally::default(), |sum, end| sum.plus(&end.1));
    let blocks = tally.requested() as f64;
    Pass {
        tally,
        cpu_blocks_s: blocks / busiest.as_secs_f64(),
        wall_blocks_s: blocks / wall.as_secs_f64(),
    }
}

/// The trace in the data directory, or one that is made: conversations that go on, over a shared beginning.
fn works() -> (String, Vec<Work>) {
    if let Some(data) = std::env::var_os("STEPWELL_DATA") {
        let path = PathBuf::from(data).join("mooncake_conversation_trace.jsonl");
        let reader = TraceReader::open(&path).expect("a trace in STEPWELL_DATA");
        let requests = reader.map(|request| request.expect("a trace that can be read"));
        let work = requests.map(|request| Work::new(request.timestamp_ms, &request.hash_ids));
        return (path.display().to_string(), work.collect());
    }
    let mut conversations: Vec<Vec<u64>> = vec![vec![0]; 500];
    let mut name = 0;
    let mut random = 1u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (random >> 33) % below
    };
    let mut work = Vec::new();
    for time_ms in 0..12_000 {
        let conversation = &mut conversations[next(500) as usize];
        if conversation.len() > 60 {
            conversation.truncate(1);
        }
        for _ in 0..1 + next(16) {
            name += 1;
            conversation.push(name);
        }
        work.push(Work::new(time_ms * 300, conversation));
    }
    ("a made trace (STEPWELL_DATA is not set)".to_owned(), work)
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Prints how a measured ratio stands to its bar.
fn judge(name: &str, ratio: f64, met: bool, bar: &str) -> bool {
    println!(
        "  {name:<44} {ratio:>6.3}  wanted {bar}: {}",
        if met { "met" } else { "MISSED" }
    );
    met
}

fn rounds() -> (usize, bool) {
    let arguments: Vec<String> = std::env::args().collect();
    let bench = arguments.iter().any(|argument| argument == "--bench");
    let place = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = place.and_then(|place| arguments.get(place + 1)?.parse().ok());
    (
        rounds.unwrap_or(if bench { ROUNDS } else { 1 }).max(1),
        bench,
    )
}

fn main() -> ExitCode {
    let (rounds, judged) = rounds();
    let (source, work) = works();
    println!(
        "{source}: {} requests, {CAPACITY_BLOCKS} blocks, {rounds} passes",
        work.len()
    );
    let mut passes: [[Vec<Pass>; 2]; 2] = Default::default();
    let mut active: [Vec<f64>; 2] = Default::default();
    let names: Vec<u64> = (0..ACTIVE_BLOCKS).map(|block| u64::MAX - block).collect();
    let chain = Work::new(0, &names);
    for _ in 0..rounds {
        for threads in [1, 2] {
            passes[0][threads - 1].push(pass(&Ours::new(CAPACITY_BLOCKS), &work, threads));
            passes[1][threads - 1].push(pass(&Theirs::new(CAPACITY_BLOCKS), &work, threads));
        }
        let ns = |time: Duration| time.as_nanos() as f64 / ACTIVE_TIMES as f64;
        active[0].push(ns(Ours::new(1000).match_active(&chain, ACTIVE_TIMES)));
        active[1].push(ns(Theirs::new(1000).match_active(&chain, ACTIVE_TIMES)));
    }
    let met = report(&passes, &active);
    if judged && !met {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn report(passes: &[[Vec<Pass>; 2]; 2], active: &[Vec<f64>; 2]) -> bool {
    let of = |side: usize, threads: usize, value: &dyn Fn(&Pass) -> f64| {
        median(passes[side][threads - 1].iter().map(value))
    };
    println!(
        "  {:<34} {:>12} {:>14}",
        "median of the passes", "blockmgr", "kvbm-logical"
    );
    let row = |name: &str, threads: usize, value: &dyn Fn(&Pass) -> f64| {
        println!(
            "  {name:<34} {:>12.3} {:>14.3}",
            of(0, threads, value),
            of(1, threads, value)
        );
    };
    for (call, name) in CALLS.iter().enumerate() {
        row(&format!("{name}, ns a block"), 1, &|pass| {
            pass.tally.ns(call)
        });
    }
    for threads in [1, 2] {
        row(&format!("hit rate, {threads} threads"), threads, &hit_rate);
        row(
            &format!("M blocks/CPU s, {threads} threads"),
            threads,
            &|pass| pass.cpu_blocks_s / 1e6,
        );
        row(
            &format!("M blocks/s, {threads} threads"),
            threads,
            &|pass| pass.wall_blocks_s / 1e6,
        );
    }
    let (ours, theirs) = (median(active[0].clone()), median(active[1].clone()));
    println!(
        "  {:<34} {:>12.0} {:>14.0}",
        "match 128 blocks in use, ns", ours, theirs
    );

    let mut met = true;
    for (call, name) in CALLS.iter().enumerate() {
        let pairs = passes[0][0].iter().zip(&passes[1][0]);
        let ratio = median(pairs.map(|(ours, theirs)| ours.tally.ns(call) / theirs.tally.ns(call)));
        met &= judge(
            &format!("{name}: ours by theirs"),
            ratio,
            ratio <= SHARE_MAX,
            "≤ 0.5",
        );
    }
    let pairs = active[0].iter().zip(&active[1]);
    let ratio = median(pairs.map(|(ours, theirs)| ours / theirs));
    met &= judge(
        "match in use: ours by theirs",
        ratio,
        ratio <= SHARE_MAX,
        "≤ 0.5",
    );
    let pairs = passes[0][1].iter().zip(&passes[0][0]);
    let ratio = median(pairs.map(|(two, one)| two.wall_blocks_s / one.wall_blocks_s));
    met &= judge(
        "blocks/s: two threads by one",
        ratio,
        ratio >= SCALING_MIN,
        "≥ 1.7",
    );
    let pairs = passes[0][1].iter().zip(&passes[1][1]);
    let ratio = median(pairs.map(|(ours, theirs)| ours.wall_blocks_s / theirs.wall_blocks_s));
    met &= judge(
        "blocks/s, two threads: ours by theirs",
        ratio,
        ratio >= SCALING_MIN,
        "≥ 1.7",
    );
    let gap = (of(0, 1, &hit_rate) - of(0, 2, &hit_rate)).abs();
    met & judge("hit rate: two threads to one", gap, gap <= 0.005, "≤ 0.005")
}

fn hit_rate(pass: &Pass) -> f64 {
    pass.tally.hits as f64 / pass.tally.requested() as f64
}
