//! Blocks move between the tiers of a configuration, whatever their layouts.
#![cfg(not(shuttle))]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use blockmgr::layout::AxisOrder;
use blockmgr::movement::{Admission, OffloadOptions, TierId};
use blockmgr::policy::PolicyKind;
use blockmgr::{
    BlockPool, Error, KvBlockManager, KvBlockManagerConfig, KvManagerLayoutConfig,
    KvManagerModelConfig, LayoutType, RequestOptions, SequenceHash,
};
use core_alloc::{NullDeviceAllocator, StorageAllocator, SystemAllocator};
use core_view::contract::mock::{MockBlockStore, MockMedia, Schedule};
use core_view::contract::{HostTier, MemoryTier, SlotId, conformance};

const BLOCK_BYTES: usize = 3 * 2 * 4 * 2 * 8 * 2;

fn model() -> KvManagerModelConfig {
    let builder = KvManagerModelConfig::builder()
        .name("m")
        .num_layers(3)
        .outer_dim(2)
        .page_size(4);
    builder.heads(2).head_dim(8).dtype_bytes(2).build().unwrap()
}

fn tier(blocks: usize, layout: LayoutType, order: AxisOrder) -> KvManagerLayoutConfig {
    let builder = KvManagerLayoutConfig::builder()
        .num_blocks(blocks)
        .layout_type(layout)
        .order(order)
        .pool(BlockPool::builder().policy(PolicyKind::Lru));
    builder.allocator(SystemAllocator).build().unwrap()
}

fn store(media: &MockMedia, blocks: usize) -> KvManagerLayoutConfig {
    let store = MockBlockStore::open(media.clone(), Schedule::immediate());
    let builder = KvManagerLayoutConfig::builder().num_blocks(blocks);
    builder.store(Arc::new(store)).build().unwrap()
}

fn hash(number: u32) -> SequenceHash {
    SequenceHash::new(u128::from(number + 1) << 64 | 0xfeed, number)
}

fn content(number: u32) -> Vec<u8> {
    let byte = |place: usize| (place * 7 + number as usize * 31) as u8;
    (0..BLOCK_BYTES).map(byte).collect()
}

/// Fills and registers a block in the first tier, and lets it go down as far as it may.
fn add(manager: &KvBlockManager, number: u32) {
    let (device, cache) = (manager.device().unwrap(), manager.cache().unwrap());
    let fresh = cache.allocate_blocks(1).unwrap();
    let mut block = fresh.into_iter().next().unwrap();
    device.write_block(&mut block, &content(number)).unwrap();
    let complete = block.complete_as(hash(number));
    let options = OffloadOptions::default();
    drop(cache.register_blocks(complete.into(), options).unwrap());
    cache.drain();
}

/// Matches a block, which has to come from that tier, and compares it.
fn find(manager: &KvBlockManager, number: u32, from: TierId) {
    let (device, cache) = (manager.device().unwrap(), manager.cache().unwrap());
    let hits = || cache.traffic().tiers[&from].hits;
    let before = hits();
    let matched = cache.match_blocks(&[hash(number)], &RequestOptions::default());
    assert_eq!(matched.blocks.len(), 1, "block {number} from {from}");
    assert_eq!(hits(), before + 1, "block {number} from {from}");
    let block = matched.blocks.get(0).unwrap();
    let mut read = vec![0; BLOCK_BYTES];
    device.read_block(&block, &mut read).unwrap();
    assert_eq!(read, content(number), "block {number} from {from}");
}

const LAYOUTS: [LayoutType; 4] = [
    LayoutType::FullyContiguous,
    LayoutType::Paged,
    LayoutType::LayerSeparate { outer_major: false },
    LayoutType::LayerSeparate { outer_major: true },
];

fn three_tiers(
    device: KvManagerLayoutConfig,
    host: Option<KvManagerLayoutConfig>,
    media: &MockMedia,
) -> KvBlockManager {
    let mut config = KvBlockManagerConfig::builder()
        .model(model())
        .device_layout(device)
        .disk_layout(store(media, 32));
    if let Some(host) = host {
        config = config.host_layout(host);
    }
    KvBlockManager::new(config.build().unwrap()).unwrap()
}

#[test]
fn blocks_keep_their_content_through_tiers_of_different_layouts() {
    for (index, layout) in LAYOUTS.into_iter().enumerate() {
        let other = LAYOUTS[(index + 1) % LAYOUTS.len()];
        let media = MockMedia::default();
        let device = || tier(2, layout, AxisOrder::HND);
        let host = || Some(tier(4, other, AxisOrder::NHD));
        let manager = three_tiers(device(), host(), &media);
        for number in 0..8 {
            add(&manager, number);
        }
        // The device has the last two, the host the last four, and the disk all.
        find(&manager, 7, TierId::G1);
        find(&manager, 5, TierId::G2);
        find(&manager, 0, TierId::G3);
        drop(manager);
        // The same model in other layouts finds what is on disk.
        let manager = three_tiers(tier(2, other, AxisOrder::NHD), None, &media);
        let cache = manager.cache().unwrap();
        assert_eq!(cache.reopened().unwrap().restored_blocks, 8);
        for number in 0..8 {
            find(&manager, number, TierId::G3);
        }
        assert!(cache.traffic().mismatches.is_empty());
    }
}

#[test]
fn memory_comes_in_behind_its_contract() {
    let storage = SystemAllocator.allocate(4 * BLOCK_BYTES).unwrap();
    let memory = Arc::new(HostTier::new(storage, BLOCK_BYTES).unwrap());
    let device = |blocks| {
        let builder = KvManagerLayoutConfig::builder()
            .num_blocks(blocks)
            .pool(BlockPool::builder().policy(PolicyKind::Lru));
        builder.memory(Arc::clone(&memory) as Arc<dyn MemoryTier>)
    };
    let device_layout = device(2).build().unwrap();
    let manager = three_tiers(device_layout, None, &MockMedia::default());
    for number in 0..6 {
        add(&manager, number);
    }
    find(&manager, 5, TierId::G1);
    find(&manager, 1, TierId::G3);
    // It is in canonical order there.
    let matched = manager.cache().unwrap();
    let matched = matched.match_blocks(&[hash(1)], &RequestOptions::default());
    let slot: SlotId = matched.blocks.slots().next().unwrap();
    assert_eq!(&*memory.lease(slot).unwrap(), content(1));
    drop(matched);

    let named = |device: KvManagerLayoutConfig, field: &str| {
        let config = KvBlockManagerConfig::builder().model(model());
        let config = config.device_layout(device).build().unwrap();
        let message = KvBlockManager::new(config).unwrap_err().to_string();
        assert!(message.contains(field), "{message}");
    };
    named(device(5).build().unwrap(), "num_blocks");
    let storage = SystemAllocator.allocate(4 * BLOCK_BYTES).unwrap();
    let long = Arc::new(HostTier::new(storage, 2 * BLOCK_BYTES).unwrap());
    let long = KvManagerLayoutConfig::builder().num_blocks(1).memory(long);
    named(long.build().unwrap(), "slot_bytes");
}

#[test]
fn movement_is_configured_with_the_tiers() {
    let config = KvBlockManagerConfig::builder()
        .model(model())
        .device_layout(tier(2, LayoutType::Paged, AxisOrder::NHD))
        .disk_layout(store(&MockMedia::default(), 8))
        .movement(|builder| {
            let priority_min = 1;
            builder.admission(
                TierId::G3,
                Admission {
                    priority_min,
                    ..Admission::default()
                },
            )
        });
    let manager = KvBlockManager::new(config.build().unwrap()).unwrap();
    add(&manager, 0);
    let traffic = manager.cache().unwrap().traffic();
    assert_eq!(traffic.tiers[&TierId::G3].blocks_in, 0);
    assert_eq!(traffic.dropped.values().sum::<u64>(), 1);
}

#[test]
fn tiers_that_cannot_be_composed_are_named() {
    let build = |device: Option<KvManagerLayoutConfig>, host, disk| {
        let mut config = KvBlockManagerConfig::builder().model(model());
        if let Some(device) = device {
            config = config.device_layout(device);
        }
        if let Some(host) = host {
            config = config.host_layout(host);
        }
        if let Some(disk) = disk {
            config = config.disk_layout(disk);
        }
        KvBlockManager::new(config.build().unwrap())
    };
    let memory = || tier(2, LayoutType::Paged, AxisOrder::NHD);
    let device = || {
        let device = KvManagerLayoutConfig::builder().num_blocks(2);
        device.allocator(NullDeviceAllocator).build().unwrap()
    };
    let disk = || store(&MockMedia::default(), 8);
    // What can't be composed has its tiers, and says why.
    let manager = build(Some(device()), Some(memory()), None).unwrap();
    assert!(manager.device().is_some() && manager.host().is_some());
    let error = manager.cache().unwrap_err();
    let field = "allocator";
    assert!(
        matches!(error, Error::InvalidConfig { field: found, .. } if *found == field),
        "{error}"
    );
    assert!(build(Some(device()), None, None).unwrap().cache().is_ok());
    let manager = build(None, None, Some(disk())).unwrap();
    let error = manager.cache().unwrap_err();
    assert!(matches!(error, Error::MissingConfig { .. }), "{error}");
    let error = build(None, Some(disk()), None).unwrap_err();
    assert!(
        matches!(error, Error::InvalidConfig { field: "store", .. }),
        "{error}"
    );
    // Storage of an allocator is a pool of its own.
    let manager = build(Some(memory()), None, Some(memory())).unwrap();
    assert!(manager.disk().is_some());
    assert!(manager.cache().unwrap().pool_of(TierId::G3).is_none());
}

#[test]
fn tiers_of_any_layout_keep_the_contract_of_memory() {
    for layout in [LayoutType::FullyContiguous, LayoutType::Paged] {
        conformance::memory_tier(&|| {
            let config = KvBlockManagerConfig::builder()
                .model(model())
                .device_layout(tier(8, layout, AxisOrder::HND));
            let manager = KvBlockManager::new(config.build().unwrap()).unwrap();
            Arc::clone(manager.cache().unwrap().memory())
        });
    }
}
