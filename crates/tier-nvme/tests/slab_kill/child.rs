//! The process that is killed: puts and removes blocks until then.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use core_view::contract::{BlockKey, BlockStore};
use tier_nvme::{BlockSlab, RealVolume, VolumeOptions};

use crate::blocks::{Batch, WRITERS, config, put};
use crate::stage::{Told, Watched};

pub(crate) fn run(folder: &Path) {
    let told = Told::new(&folder.join("stage"));
    let volume = Watched {
        inner: Arc::new(RealVolume::create(folder.join("slab"), VolumeOptions::default()).unwrap()),
        told: Arc::clone(&told),
    };
    let slab = BlockSlab::on_volume(Arc::new(volume), config()).unwrap();
    told.acknowledged();
    let first = std::fs::read_to_string(folder.join("next")).unwrap();
    let first: u64 = first.parse().unwrap();
    tell("ready");
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (slab, told) = (&slab, &told);
            scope.spawn(move || {
                let numbers = (first..).filter(|number| number % WRITERS == writer);
                numbers.for_each(|number| change(slab, told, number));
            });
        }
    });
}

/// Makes one batch, and says so before and after.
fn change(slab: &BlockSlab, told: &Told, number: u64) {
    tell(&format!("begun {number}"));
    match Batch::of(number) {
        Batch::Put(keys) => {
            let puts = keys.iter().map(|&key| put(number, key)).collect();
            for item in slab.put(puts).wait().unwrap() {
                item.unwrap();
            }
        }
        Batch::Remove(keys) => {
            let keys: Vec<_> = keys.into_iter().map(BlockKey).collect();
            slab.remove(&keys).wait().unwrap();
        }
    }
    told.acknowledged();
    tell(&format!("done {number}"));
}

/// Tells the other process by the pipe; a short line goes through it whole or not at all.
fn tell(what: &str) {
    let line = format!("\n@{what}\n");
    let mut pipe = std::io::stdout().lock();
    pipe.write_all(line.as_bytes()).unwrap();
    pipe.flush().unwrap();
}
