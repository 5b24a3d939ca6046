//! The blob store beside a raw loop of the same bytes, depth and syncs.
//!
//! It works in a directory of its own in `STEPWELL_NVME_DIR`, or else in the build directory: a temporary
//! directory may be memory. `stepwell bench nvme` measures the same and draws it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a benchmark stops at what fails")]

use std::process::ExitCode;

use stepwell_benches::{Bench, Group};
use tier_nvme::bench::{Action, Contender, RawLoop, SlabContender, StoreContender, Work, measure};

/// How much smaller the work of a quick run is.
const QUICK_DIVISOR: usize = 16;

/// The name of the store's cases.
const STORE: &str = "stepwell";

/// Adds a contender's turns at a piece of work as a case.
fn add<'a>(group: &mut Group<'a>, name: &str, contender: &'a mut dyn Contender, work: &'a Work) {
    let mut turn = 0;
    group
        .case_timed(name, move |times| {
            (0..times)
                .map(|_| {
                    let sample = measure(contender, work, turn).unwrap();
                    turn += 1;
                    sample.elapsed
                })
                .sum()
        })
        .bytes(work.turn_bytes());
}

fn main() -> ExitCode {
    let mut bench = Bench::from_args("nvme_throughput");
    let parent =
        std::env::var_os("STEPWELL_NVME_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    let folder = tempfile::Builder::new()
        .prefix("nvme-")
        .tempdir_in(parent)
        .unwrap();
    let path = folder.path();
    let mut fresh = RawLoop::fresh(path).unwrap();
    let mut overwriting = RawLoop::overwriting(path).unwrap();
    let mut store = StoreContender::create(&path.join("store")).unwrap();
    let mut slab = SlabContender::new(&path.join("slab"));
    for work in Work::ALL {
        let work = match bench.settings().is_quick() {
            true => work.reduced(QUICK_DIVISOR),
            false => work,
        };
        let (fresh_name, overwriting_name) = (fresh.name(), overwriting.name());
        let slab_name = slab.name();
        let mut group = bench.group(work.title);
        add(&mut group, &overwriting_name, &mut overwriting, &work);
        if work.action == Action::Put {
            add(&mut group, &fresh_name, &mut fresh, &work);
        }
        add(&mut group, STORE, &mut store, &work);
        add(&mut group, &slab_name, &mut slab, &work);
        // Against each raw loop, and so against the faster one.
        if let Some(least) = work.ratio_min {
            group.bar_at_least(work.title, STORE, &overwriting_name, least);
            if work.action == Action::Put {
                group.bar_at_least(work.title, STORE, &fresh_name, least);
            }
        }
        group.run();
    }
    drop((store, slab));
    folder.close().unwrap();
    match bench.finish() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
