//! A payload that can't be written while the record that names it is on its way.

use core_view::BufferMut;
use core_view::contract::{BlockGet, BlockKey, BlockMeta, BlockPut, BlockStore};
use tier_nvme::sim::{FaultRates, SimVolume, Survival};
use tier_nvme::{BlockSlab, SlabConfig};

const BLOCK: usize = 8 << 10;

fn open(volume: &SimVolume) -> BlockSlab {
    let config = SlabConfig::default()
        .with_block_bytes(BLOCK as u64)
        .with_capacity_bytes(256 << 10)
        .with_segment_bytes(256 << 10)
        .with_own_thread(false);
    BlockSlab::on_volume(volume.handle(), config).unwrap()
}

fn block(key: u128, byte: u8) -> BlockPut {
    let mut payload = BufferMut::zeroed(BLOCK, 4096).unwrap();
    payload.fill(byte);
    BlockPut {
        key: BlockKey(key),
        meta: BlockMeta::EMPTY,
        payload,
    }
}

/// The byte that a block is full of, if it is there.
fn byte_of(slab: &BlockSlab, key: u128) -> Option<u8> {
    let target = BufferMut::zeroed(BLOCK, 4096).unwrap();
    let key = BlockKey(key);
    let block = slab.get(vec![BlockGet { key, target }]).wait().unwrap();
    let block = block.into_iter().next()?.ok()?;
    let first = block.payload()[0];
    assert!(block.payload().iter().all(|&byte| byte == first));
    Some(first)
}

#[test]
fn a_block_that_cannot_be_written_fails_alone_and_stays_away() {
    let (mut alone, mut all) = (0, 0);
    for seed in 0..200 {
        let volume = SimVolume::new(seed);
        let slab = open(&volume);
        for key in 0..2 {
            slab.put(vec![block(key, 1)])
                .wait()
                .unwrap()
                .remove(0)
                .unwrap();
        }
        volume.set_faults(FaultRates {
            write_errors: 300,
            ..FaultRates::default()
        });
        let records = slab.stats().records;
        // Four callers share a record; one replaces a block, one removes what another puts.
        let puts: Vec<_> = (1..4).map(|key| slab.put(vec![block(key, 9)])).collect();
        let removed = slab.remove(&[BlockKey(3), BlockKey(0)]);
        let written: Vec<bool> = puts
            .into_iter()
            .map(|put| match put.wait() {
                Ok(mut items) => match items.remove(0) {
                    Ok(payload) => payload.len() == BLOCK,
                    Err(failure) => {
                        assert_eq!(failure.into_parts().1.len(), 1, "its buffer comes back");
                        false
                    }
                },
                Err(failure) => panic!("{failure}"),
            })
            .collect();
        let removed = removed.wait();
        volume.set_faults(FaultRates::default());
        if slab.stats().poisoned.is_some() {
            // The record itself could not be written.
            continue;
        }
        assert_eq!(slab.stats().records, records + 1, "seed {seed}");
        assert_eq!(removed.unwrap(), [written[2], true], "seed {seed}");
        match written.iter().filter(|&&it| it).count() {
            0 => all += 1,
            1 | 2 => alone += 1,
            _ => {}
        }
        let expected = |written: bool, before: Option<u8>| if written { Some(9) } else { before };
        let expected = [
            None,
            expected(written[0], Some(1)),
            expected(written[1], None),
            None,
        ];
        let found = |slab: &BlockSlab| [0, 1, 2, 3].map(|key| byte_of(slab, key));
        assert_eq!(found(&slab), expected, "seed {seed}");
        volume.crash_keeping(match seed % 3 {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            _ => Survival::BySector,
        });
        drop(slab);
        let slab = open(&volume);
        assert_eq!(found(&slab), expected, "seed {seed} after a power loss");
        slab.put(vec![block(7, 7)])
            .wait()
            .unwrap()
            .remove(0)
            .unwrap();
        assert!(slab.verify().unwrap().is_whole());
    }
    assert!(alone > 15 && all > 1, "{alone} {all}");
}
