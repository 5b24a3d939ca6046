//! The last owner of a slab is what is chained to a transfer.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockKey, BlockStore};
use tier_nvme::sim::{Latency, SimVolume};
use tier_nvme::{BlockSlab, EngineChoice, NvmeError, RealVolume, Volume, VolumeOptions};

use super::{BLOCK_BYTES, PATIENCE, block, config, tag_of, wait};

/// What the last owner is chained to.
#[derive(Debug, Clone, Copy)]
enum Chained {
    Put,
    Remove,
    Get,
}

const ALL: [Chained; 3] = [Chained::Put, Chained::Remove, Chained::Get];

fn get_of(key: u128) -> BlockGet {
    BlockGet {
        key: BlockKey(key),
        target: BufferMut::zeroed(BLOCK_BYTES, BLOCK_BYTES).unwrap(),
    }
}

/// Starts an operation whose end is the end of the slab, and tells on which thread that was.
fn end_by(slab: BlockSlab, chained: Chained, told: Sender<ThreadId>) {
    let slab = Arc::new(slab);
    let owner = Arc::clone(&slab);
    let let_go = move || {
        drop(owner);
        told.send(thread::current().id()).unwrap();
    };
    match chained {
        Chained::Put => {
            let put = slab.put(vec![block(3, 3)]);
            drop(slab);
            put.on_complete(move |_| let_go());
        }
        Chained::Remove => {
            let remove = slab.remove(&[BlockKey(1)]);
            drop(slab);
            remove.on_complete(move |_| let_go());
        }
        Chained::Get => {
            let get = slab.get(vec![get_of(2)]);
            drop(slab);
            get.on_complete(move |_| let_go());
        }
    }
}

/// Opens the slab once nobody holds its directory any more.
fn reopen(open: impl Fn() -> Result<BlockSlab, NvmeError>) -> BlockSlab {
    let until = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(NvmeError::Locked { .. }) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
}

fn wait_until_gone(volume: &Weak<dyn Volume>) {
    let until = Instant::now() + PATIENCE;
    while volume.strong_count() > 0 {
        assert!(Instant::now() < until, "somebody holds the volume still");
        thread::sleep(Duration::from_millis(1));
    }
}

fn real_life(engine: EngineChoice, own_thread: bool, chained: Chained) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let options = VolumeOptions::default().with_engine(engine).with_threads(1);
    let open = || -> Result<(BlockSlab, Weak<dyn Volume>), NvmeError> {
        let volume = RealVolume::create(directory.path(), options.clone())?;
        let volume: Arc<dyn Volume> = Arc::new(volume);
        let weak = Arc::downgrade(&volume);
        let slab = BlockSlab::on_volume(volume, config(own_thread))?;
        Ok((slab, weak))
    };
    let (slab, volume) = open().unwrap();
    wait(slab.put(vec![block(1, 1), block(2, 2)])).unwrap();
    let (told, hears) = channel();
    end_by(slab, chained, told);
    let ended_on = hears.recv_timeout(PATIENCE).unwrap();
    wait_until_gone(&volume);
    let slab = reopen(|| Ok(open()?.0));
    assert!(
        slab.recovery_report().clean,
        "{chained:?}: it ended as if it was closed"
    );
    assert_eq!(tag_of(&slab, 2), Ok(Some(2)));
    ended_on != thread::current().id()
}

/// Lives, ten at least, until one was ended by another thread: which thread it is, is a race.
fn ends_elsewhere(engine: EngineChoice, own_thread: bool, chained: Chained) -> bool {
    let until = Instant::now() + PATIENCE;
    let mut elsewhere = false;
    for life in 0.. {
        elsewhere |= real_life(engine, own_thread, chained);
        if life >= 9 && (elsewhere || Instant::now() > until) {
            break;
        }
    }
    elsewhere
}

#[test]
fn a_callback_of_a_real_volume_may_end_the_slab() {
    for engine in [EngineChoice::ThreadPool, EngineChoice::Auto] {
        for chained in ALL {
            assert!(
                ends_elsewhere(engine, true, chained),
                "{engine:?}, {chained:?}: no callback was called by a thread of the slab's"
            );
        }
        // Without a thread of its own, nobody pushes what is chained to a change.
        assert!(
            ends_elsewhere(engine, false, Chained::Get),
            "{engine:?}: no callback was called by a thread of the engine's"
        );
    }
}

/// Fetches that are under way while somebody pushes a change; one of their callbacks ends the slab.
fn driven_life(seed: u64, ending: usize) {
    const FETCHES: usize = 6;
    let volume = SimVolume::new(seed);
    let handle = volume.handle();
    let weak = Arc::downgrade(&handle);
    let slab = Arc::new(BlockSlab::on_volume(handle, config(false)).unwrap());
    wait(slab.put((0..FETCHES as u128).map(|key| block(key, 1)).collect())).unwrap();
    volume.set_latency(Some(Latency::of_flash()));
    let put = slab.put(vec![block(9, 9)]);
    let ended = Arc::new(AtomicUsize::new(0));
    for number in 0..FETCHES {
        let get = slab.get(vec![get_of(number as u128)]);
        let (ended, owner) = (Arc::clone(&ended), Arc::clone(&slab));
        get.on_complete(move |outcome| {
            assert!(outcome.unwrap().remove(0).is_ok());
            // All owners go with the one that is awaited, the others before.
            drop(owner);
            ended.fetch_add(1, Ordering::Relaxed);
        });
    }
    let remove = slab.remove(&[BlockKey(0)]);
    if ending.is_multiple_of(2) {
        drop(slab);
        assert!(wait(put).unwrap().remove(0).is_ok());
        assert_eq!(wait(remove).unwrap(), [true]);
    } else {
        put.on_complete(move |outcome| {
            assert!(outcome.unwrap().remove(0).is_ok());
            drop(slab);
        });
        assert_eq!(wait(remove).unwrap(), [true]);
    }
    while volume.step() {}
    assert_eq!(ended.load(Ordering::Relaxed), FETCHES, "seed {seed}");
    wait_until_gone(&weak);
    volume.set_latency(None);
    let slab = BlockSlab::on_volume(volume.handle(), config(false)).unwrap();
    assert_eq!(tag_of(&slab, 9), Ok(Some(9)), "seed {seed}");
    assert_eq!(tag_of(&slab, 0), Ok(None), "seed {seed}");
}

#[test]
fn a_callback_of_a_simulated_volume_may_end_the_slab_that_somebody_pushes() {
    for seed in 0..40 {
        driven_life(seed, seed as usize);
    }
}

/// A life with a callback that panics, unless its operation was done before it was chained: then it would be our panic. Whether it did.
fn panicking_life(own_thread: bool) -> bool {
    let volume = SimVolume::new(1);
    let slab = BlockSlab::on_volume(volume.handle(), config(own_thread)).unwrap();
    let remove = slab.remove(&[BlockKey(5)]);
    let is_chained = Arc::new(AtomicBool::new(false));
    let panics = Arc::clone(&is_chained);
    slab.put(vec![block(1, 1)]).on_complete(move |_| {
        assert!(!panics.load(Ordering::Relaxed), "on purpose");
    });
    is_chained.store(true, Ordering::Relaxed);
    let put = slab.put(vec![block(2, 2)]);
    assert!(wait(put).unwrap().remove(0).is_ok());
    assert_eq!(wait(remove).unwrap(), [false]);
    // What came later is committed later.
    assert!(wait(slab.put(vec![block(3, 3)])).unwrap().remove(0).is_ok());
    let stats = slab.stats();
    assert!(stats.panics <= 1 && stats.poisoned.is_none(), "{stats:?}");
    for key in 1..4 {
        assert_eq!(tag_of(&slab, key), Ok(Some(key as u8)));
    }
    slab.close().unwrap();
    stats.panics == 1
}

#[test]
fn a_callback_that_panics_concerns_nobody_else() {
    assert!(panicking_life(false));
    let until = Instant::now() + PATIENCE;
    while !panicking_life(true) {
        assert!(Instant::now() < until, "no callback was chained in time");
    }
}
