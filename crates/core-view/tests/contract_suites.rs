//! Every suite over every schedule.
#![cfg(feature = "testing")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use core_alloc::{StorageAllocator, SystemAllocator};
use core_view::BufferMut;
use core_view::contract::conformance::{self, BlockStoreSource};
use core_view::contract::mock::{
    Faults, MockBlockStore, MockDevice, MockMedia, MockOperations, MockTier, Schedule,
};
use core_view::contract::{BlockCapabilities, BlockStore, HostTier, MemoryTier, SlotId};

const SLOT_BYTES: usize = 256;

fn host_tier() -> HostTier {
    let storage = SystemAllocator::default()
        .allocate(8 * SLOT_BYTES + 100)
        .unwrap();
    HostTier::new(storage, SLOT_BYTES).unwrap()
}

/// Every kind of trouble that leaves an operation an end.
fn trouble(seed: u64) -> Schedule {
    let faults = Faults {
        refused: 0.1,
        torn: 0.1,
        flipped: 0.1,
        abandoned: 0.05,
        ..Faults::NONE
    };
    Schedule::reordering(seed).with_faults(seed, faults)
}

fn schedules() -> Vec<Schedule> {
    let mut schedules = vec![
        Schedule::immediate(),
        Schedule::delayed(Duration::from_micros(100)),
    ];
    for seed in 0..3 {
        schedules.extend([
            Schedule::failing(seed, 0.3),
            Schedule::reordering(seed),
            Schedule::driven(seed),
            trouble(seed),
        ]);
    }
    schedules
}

#[test]
fn buffers_of_every_origin() {
    conformance::buffer(&mut |len| BufferMut::from_vec(vec![0; len]));
    conformance::buffer(&mut |len| BufferMut::zeroed(len, 4096).unwrap());
    conformance::buffer(&mut |len| {
        BufferMut::from_storage(SystemAllocator::default().allocate(len).unwrap())
    });
    let mut slab = BufferMut::zeroed(64 * 1024, 128).unwrap();
    conformance::buffer(&mut |len| slab.split_to(len));
    let quarantine = conformance::Quarantine::default();
    conformance::buffer(&mut |len| quarantine.buffer(len));
    quarantine.settle(|| {});
}

#[test]
fn buffers_leased_from_tiers() {
    for schedule in schedules() {
        let storage = SystemAllocator::default().allocate(32 * 10_000).unwrap();
        let tier = MockTier::new(HostTier::new(storage, 10_000).unwrap(), schedule);
        let mut slots = (0..).map(SlotId);
        conformance::buffer(&mut |_| tier.lease(slots.next().unwrap()).unwrap());
    }
}

#[test]
fn transfers_under_every_schedule() {
    for schedule in schedules() {
        conformance::transfer(&MockOperations::new(schedule));
    }
}

#[test]
fn host_tiers() {
    conformance::memory_tier(&|| Arc::new(host_tier()) as Arc<dyn MemoryTier>);
}

#[test]
fn memory_tiers_under_every_schedule() {
    for schedule in schedules() {
        conformance::memory_tier(&|| Arc::new(MockTier::new(host_tier(), schedule)) as _);
    }
}

#[test]
fn devices_under_every_schedule() {
    conformance::memory_tier(&|| Arc::new(MockDevice::new(host_tier())) as _);
    for schedule in schedules() {
        let device = || MockDevice::new(host_tier());
        conformance::memory_tier(&|| Arc::new(MockTier::new(device(), schedule)) as _);
    }
}

#[test]
fn a_mock_of_a_mock() {
    let inner = Schedule::delayed(Duration::from_micros(50));
    conformance::memory_tier(&|| {
        let inner = MockTier::new(host_tier(), inner);
        Arc::new(MockTier::new(inner, trouble(9))) as _
    });
}

/// Opens stores again on the medium of the last one.
struct Stores {
    schedule: Schedule,
    capabilities: BlockCapabilities,
    media: std::cell::RefCell<MockMedia>,
}

impl BlockStoreSource for Stores {
    fn make(&self) -> Arc<dyn BlockStore> {
        *self.media.borrow_mut() = MockMedia::default();
        self.open()
    }

    fn reopen(&self, store: Arc<dyn BlockStore>) -> Option<Arc<dyn BlockStore>> {
        drop(store);
        Some(self.open())
    }
}

impl Stores {
    fn open(&self) -> Arc<dyn BlockStore> {
        let store = MockBlockStore::open(self.media.borrow().clone(), self.schedule);
        Arc::new(store.with_capabilities(self.capabilities))
    }
}

#[test]
fn block_stores_under_every_schedule() {
    for schedule in schedules() {
        for (payload_alignment_bytes, capacity_bytes) in [(1, None), (512, Some(200 << 10))] {
            conformance::block_store(&Stores {
                schedule,
                capabilities: BlockCapabilities {
                    durable: true,
                    payload_alignment_bytes,
                    payload_bytes_max: 16 << 10,
                    capacity_bytes,
                },
                media: std::cell::RefCell::default(),
            });
        }
    }
}

#[test]
fn a_store_that_only_a_closure_makes() {
    let make = || Arc::new(MockBlockStore::new(Schedule::immediate())) as Arc<dyn BlockStore>;
    conformance::block_store(&make);
}
