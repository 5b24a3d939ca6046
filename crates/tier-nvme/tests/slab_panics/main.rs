//! A slab whose volume panics, and one whose last owner is a callback: nobody waits for ever, and nothing that
//! was acknowledged is lost.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod last_owner;
mod volume;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use core_view::BufferMut;
use core_view::contract::{
    BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore, ErrorKind, Failure, Transfer,
};
use tier_nvme::sim::{Latency, SimVolume};
use tier_nvme::{BlockSlab, RealVolume, SlabConfig, Volume, VolumeOptions};
use volume::{Moment, Panicking};

const BLOCK_BYTES: usize = 4096;
/// Header, log, six slots.
const SEGMENT_BYTES: u64 = (4 << 10) + (32 << 10) + 6 * BLOCK_BYTES as u64;

/// So many lives in a row that have fewer operations than the one that would panic: then no life has so many.
const UNHARMED_LIVES: u32 = 5;

/// Longest that a transfer may take; far more than any takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(own_thread: bool) -> SlabConfig {
    SlabConfig::default()
        .with_block_bytes(BLOCK_BYTES as u64)
        .with_segment_bytes(SEGMENT_BYTES)
        .with_capacity_bytes(4 * SEGMENT_BYTES)
        .with_log_bytes(32 << 10)
        .with_own_thread(own_thread)
}

fn block(key: u128, tag: u8) -> BlockPut {
    let mut payload = BufferMut::zeroed(BLOCK_BYTES, BLOCK_BYTES).unwrap();
    payload.fill(tag);
    BlockPut {
        key: BlockKey(key),
        meta: BlockMeta::new(&[tag]).unwrap(),
        payload,
    }
}

fn wait<T: Send + 'static>(transfer: Transfer<T>) -> Result<T, Failure> {
    let outcome = transfer.wait_for(PATIENCE);
    outcome.unwrap_or_else(|transfer| panic!("it hangs: {transfer:?}"))
}

/// What is stored under a key.
fn tag_of(slab: &BlockSlab, key: u128) -> Result<Option<u8>, ErrorKind> {
    let target = BufferMut::zeroed(BLOCK_BYTES, BLOCK_BYTES).unwrap();
    let gets = vec![BlockGet {
        key: BlockKey(key),
        target,
    }];
    let blocks = match key % 2 {
        0 => wait(slab.get(gets)),
        _ => slab.get_blocking(gets),
    };
    let mut blocks = blocks.map_err(|failure| failure.kind())?;
    match blocks.remove(0) {
        Ok(block) => {
            let tag = block.meta.as_slice()[0];
            assert!(block.payload().iter().all(|&byte| byte == tag));
            Ok(Some(tag))
        }
        Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(None),
        Err(failure) => Err(failure.kind()),
    }
}

/// What each key may hold.
type Possible = BTreeMap<u128, Vec<Option<u8>>>;

/// A change under way: what it makes of which keys.
enum Flying {
    Put(Vec<u128>, u8, Transfer<Vec<Result<BufferMut, Failure>>>),
    Remove(Vec<u128>, Transfer<Vec<bool>>),
}

/// Several changes at once, over and over; segments are made, and slots used again. Ends at the first failure.
fn change(slab: &BlockSlab, possible: &mut Possible) -> Result<(), ErrorKind> {
    for round in 0..5_u8 {
        let mut flying = Vec::new();
        for part in 0..3_u8 {
            let tag = 1 + round * 3 + part;
            let first = u128::from(part) * 4;
            let keys: Vec<u128> = (first..first + 4).collect();
            let puts = keys.iter().map(|&key| block(key, tag)).collect();
            flying.push(Flying::Put(keys, tag, slab.put(puts)));
        }
        let keys = vec![u128::from(round), 20];
        let ids: Vec<_> = keys.iter().copied().map(BlockKey).collect();
        flying.push(Flying::Remove(keys, slab.remove(&ids)));
        let mut failed = Ok(());
        let mut outcomes: BTreeMap<u128, Vec<(Option<u8>, bool)>> = BTreeMap::new();
        for one in flying {
            let (keys, made, outcome) = match one {
                Flying::Put(keys, tag, transfer) => {
                    let items = wait(transfer).and_then(|items| items.into_iter().collect());
                    (keys, Some(tag), items.map(|_: Vec<BufferMut>| ()))
                }
                Flying::Remove(keys, transfer) => (keys, None, wait(transfer).map(|_| ())),
            };
            for key in keys {
                let made = (made, outcome.is_ok());
                outcomes.entry(key).or_default().push(made);
            }
            failed = failed.and(outcome.map_err(|failure| failure.kind()));
        }
        // Changes of a round overlap: any of them may be the last.
        for (key, outcomes) in outcomes {
            let possible = possible.entry(key).or_insert_with(|| vec![None]);
            if outcomes.iter().any(|(_, done)| *done) {
                possible.clear();
            }
            possible.extend(outcomes.into_iter().map(|(made, _)| made));
        }
        failed?;
    }
    Ok(())
}

/// Demands that the slab holds what it may.
fn check(volume: Arc<dyn Volume>, possible: &Possible, what: &str) {
    let slab = BlockSlab::on_volume(volume, config(false)).unwrap();
    for (&key, possible) in possible {
        let found = tag_of(&slab, key).unwrap();
        assert!(
            possible.contains(&found),
            "{what}: {key}: {found:?} is none of {possible:?}"
        );
    }
    let listed = slab.list(None, usize::MAX).unwrap();
    assert!(
        listed.iter().all(|it| possible.contains_key(&it.key.0)),
        "{what}"
    );
    assert!(slab.verify().unwrap().is_whole(), "{what}");
    slab.close().unwrap();
}

/// What became of a life whose volume panics at one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// In opening: the panic is the caller's own.
    Opening,
    /// The slab stopped.
    Poisoned,
    /// Only a fetch, or closing, saw it.
    Passed,
    /// There was no such operation.
    Unharmed,
}

/// Lives on a volume that panics, and checks what is left on the volume inside.
fn live(inner: &dyn Fn() -> Arc<dyn Volume>, own_thread: bool, at: u64, moment: Moment) -> Ending {
    let what = format!("operation {at}, {moment:?}, own thread {own_thread}");
    let volume = Panicking::new(inner(), at, moment);
    let mut possible = Possible::new();
    let opened = catch_unwind(AssertUnwindSafe(|| {
        BlockSlab::on_volume(Arc::new(volume.clone()), config(own_thread)).unwrap()
    }));
    let Ok(slab) = opened else {
        assert!(volume.has_panicked(), "{what}");
        drop(volume);
        check(inner(), &possible, &what);
        return Ending::Opening;
    };
    let changed = change(&slab, &mut possible);
    let stopped = slab.stats();
    assert_eq!(
        stopped.poisoned.is_some(),
        changed.is_err(),
        "{what}: {changed:?}"
    );
    if changed.is_err() {
        assert_eq!(changed, Err(ErrorKind::Poisoned), "{what}");
        assert_eq!(stopped.panics, 1, "{what}");
        let refused = wait(slab.put(vec![block(40, 1)])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned, "{what}");
        let refused = wait(slab.remove(&[BlockKey(1)])).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned, "{what}");
        assert!(slab.flush().is_err(), "{what}");
    }
    let mut fetched = Ok(());
    let mut pushed = Ok(());
    for (&key, possible) in &possible {
        match catch_unwind(AssertUnwindSafe(|| tag_of(&slab, key))) {
            Ok(Ok(found)) => assert!(possible.contains(&found), "{what}: {key}"),
            Ok(Err(kind)) => fetched = fetched.and(Err(kind)),
            // Who pushes the volume of a fetch itself has the panic itself.
            Err(_) => pushed = Err(()),
        }
    }
    let closed = slab.close();
    let harmed = volume.has_panicked();
    assert!(pushed.is_ok() || moment == Moment::Wait, "{what}");
    assert_eq!(
        closed.is_err(),
        harmed && pushed.is_ok(),
        "{what}: {closed:?}"
    );
    drop((slab, volume));
    check(inner(), &possible, &what);
    match (changed, harmed) {
        (Err(_), _) => Ending::Poisoned,
        (Ok(()), true) => Ending::Passed,
        (Ok(()), false) => {
            assert_eq!(fetched, Ok(()), "{what}");
            Ending::Unharmed
        }
    }
}

/// Every operation panics in turn.
fn at_every_operation(
    make: &dyn Fn() -> Box<dyn Fn() -> Arc<dyn Volume>>,
    own_thread: bool,
    moment: Moment,
) {
    let mut endings = Vec::new();
    let mut unharmed = 0;
    for at in 1.. {
        let inner = make();
        let ending = live(&*inner, own_thread, at, moment);
        match ending {
            Ending::Unharmed => unharmed += 1,
            _ => unharmed = 0,
        }
        // With threads one life has more operations than another.
        if unharmed == if own_thread { UNHARMED_LIVES } else { 1 } {
            break;
        }
        endings.push(ending);
    }
    let count = |wanted| endings.iter().filter(|&&ending| ending == wanted).count();
    let counts = [Ending::Opening, Ending::Poisoned, Ending::Passed].map(count);
    println!("{moment:?}, own thread {own_thread}: {counts:?} in opening, in changes, later");
    // How many operations each stage has depends on threads, where there are any.
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
}

fn simulated() -> Box<dyn Fn() -> Arc<dyn Volume>> {
    simulated_with(None)
}

fn simulated_with(latency: Option<Latency>) -> Box<dyn Fn() -> Arc<dyn Volume>> {
    let volume = SimVolume::new(1);
    volume.set_latency(latency);
    Box::new(move || {
        // Whatever the process had under way is gone with it.
        volume.kill();
        volume.handle()
    })
}

#[test]
fn a_panic_where_an_operation_starts_stops_the_slab_and_loses_nothing() {
    at_every_operation(&simulated, false, Moment::Start);
    at_every_operation(&simulated, true, Moment::Start);
}

#[test]
fn a_panic_in_a_thread_that_pushes_the_volume_stops_the_slab_and_loses_nothing() {
    let slow = || simulated_with(Some(Latency::of_flash()));
    at_every_operation(&slow, false, Moment::Wait);
}

#[test]
fn a_panic_of_a_real_volume_stops_the_slab_and_loses_nothing() {
    let real = || -> Box<dyn Fn() -> Arc<dyn Volume>> {
        let directory = tempfile::tempdir().unwrap();
        Box::new(move || {
            let options = VolumeOptions::from_test_environment()
                .unwrap()
                .with_threads(1);
            Arc::new(RealVolume::create(directory.path(), options).unwrap())
        })
    };
    at_every_operation(&real, true, Moment::Start);
}
