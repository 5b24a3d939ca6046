//! Block managers made from configurations.
#![cfg(not(shuttle))]
#![expect(clippy::unwrap_used, reason = "tests")]

use blockmgr::layout::AxisOrder;
use blockmgr::{
    Error, KvBlockManager, KvBlockManagerConfig, KvManagerLayoutConfig, KvManagerModelConfig,
    LayoutType, SequenceHash,
};
use core_alloc::{Limit, NullDeviceAllocator, StorageError, SystemAllocator};

fn model() -> KvManagerModelConfig {
    let builder = KvManagerModelConfig::builder()
        .num_layers(3)
        .outer_dim(2)
        .page_size(4);
    builder.heads(2).head_dim(8).dtype_bytes(2).build().unwrap()
}

fn manager(host: KvManagerLayoutConfig) -> Result<KvBlockManager, Error> {
    let config = KvBlockManagerConfig::builder()
        .model(model())
        .host_layout(host);
    KvBlockManager::new(config.build()?)
}

#[test]
fn blocks_read_as_they_were_written_in_every_layout() {
    let types = [
        LayoutType::FullyContiguous,
        LayoutType::Paged,
        LayoutType::LayerSeparate { outer_major: false },
        LayoutType::LayerSeparate { outer_major: true },
    ];
    for layout_type in types {
        for order in [AxisOrder::NHD, AxisOrder::HND] {
            let layout = KvManagerLayoutConfig::builder()
                .num_blocks(5)
                .layout_type(layout_type)
                .order(order)
                .alignment(64)
                .allocator(SystemAllocator);
            let manager = manager(layout.build().unwrap()).unwrap();
            let host = manager.host().unwrap();
            let content = |number: usize| -> Vec<u8> {
                (0..host.layout().block_bytes())
                    .map(|byte| (byte * 7 + number * 31) as u8)
                    .collect()
            };
            let mut held = Vec::new();
            for (number, mut block) in host
                .pool()
                .allocate_blocks(5)
                .unwrap()
                .into_iter()
                .enumerate()
            {
                host.write_block(&mut block, &content(number)).unwrap();
                let hash = SequenceHash::new(number as u128 + 1, number as u32);
                held.push(host.pool().register_block(block.complete_as(hash)).unwrap());
            }
            for (number, block) in held.iter().enumerate() {
                let mut read = vec![0; host.layout().block_bytes()];
                host.read_block(block, &mut read).unwrap();
                assert_eq!(read, content(number), "{layout_type:?}, {order:?}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let layout = || {
        KvManagerLayoutConfig::builder()
            .num_blocks(4)
            .allocator(SystemAllocator)
    };
    let error = KvManagerLayoutConfig::builder()
        .num_blocks(4)
        .build()
        .unwrap_err();
    assert!(
        matches!(error, Error::MissingConfig { field: "allocator" }),
        "{error}"
    );
    let error = layout().num_blocks(0).build().unwrap_err();
    assert!(
        matches!(
            error,
            Error::MissingConfig {
                field: "num_blocks"
            }
        ),
        "{error}"
    );
    let error = layout().alignment(1 << 30).build().unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidConfig {
                field: "alignment",
                ..
            }
        ),
        "{error}"
    );
    let error = KvBlockManagerConfig::builder()
        .model(model())
        .build()
        .unwrap_err();
    assert!(matches!(error, Error::MissingConfig { .. }), "{error}");
    let error = KvBlockManagerConfig::builder().host_layout(layout().build().unwrap());
    let error = error.build().unwrap_err();
    assert!(
        matches!(error, Error::MissingConfig { field: "model" }),
        "{error}"
    );
    let missing = KvManagerModelConfig::builder()
        .num_layers(1)
        .page_size(1)
        .inner_dim(1);
    let error = missing.build().unwrap_err();
    assert!(
        matches!(error, Error::MissingConfig { field: "outer_dim" }),
        "{error}"
    );

    let small = KvManagerLayoutConfig::builder()
        .num_blocks(4)
        .allocator(Limit::new(SystemAllocator, 1000));
    let error = manager(small.build().unwrap()).unwrap_err();
    assert!(
        matches!(error, Error::Storage { tier: "host", .. }),
        "{error}"
    );
}

#[test]
fn blocks_are_written_in_their_own_tier_and_in_full() {
    let layout = || {
        let layout = KvManagerLayoutConfig::builder()
            .num_blocks(2)
            .allocator(SystemAllocator);
        manager(layout.build().unwrap()).unwrap()
    };
    let (one, other) = (layout(), layout());
    let (one, other) = (one.host().unwrap(), other.host().unwrap());
    let mut block = one
        .pool()
        .allocate_blocks(1)
        .unwrap()
        .into_iter()
        .next()
        .unwrap();
    let bytes = vec![0; one.layout().block_bytes()];
    assert!(matches!(
        other.write_block(&mut block, &bytes),
        Err(Error::ForeignBlock)
    ));
    let short = one.write_block(&mut block, &bytes[1..]).unwrap_err();
    assert!(
        matches!(
            short,
            Error::LayoutMismatch {
                field: "block_bytes",
                ..
            }
        ),
        "{short}"
    );
    let complete = block.complete_as(SequenceHash::new(1, 0));
    let refused = other.pool().register_block(complete).unwrap_err();
    assert!(matches!(*refused.error, Error::ForeignBlock));
    one.pool().register_block(refused.offered).unwrap();
}

#[test]
fn storage_out_of_reach_of_the_host_says_so() {
    let device = KvManagerLayoutConfig::builder()
        .num_blocks(2)
        .allocator(NullDeviceAllocator);
    let config = KvBlockManagerConfig::builder().model(model());
    let config = config
        .device_layout(device.build().unwrap())
        .build()
        .unwrap();
    let manager = KvBlockManager::new(config).unwrap();
    let device = manager.device().unwrap();
    let mut block = device
        .pool()
        .allocate_blocks(1)
        .unwrap()
        .into_iter()
        .next()
        .unwrap();
    let bytes = vec![0; device.layout().block_bytes()];
    let error = device.write_block(&mut block, &bytes).unwrap_err();
    let source = StorageError::NotAccessible {
        kind: device.storage_type(),
        how: "",
    };
    assert!(
        matches!(&error, Error::Storage { tier: "device", source: found }
            if std::mem::discriminant(found) == std::mem::discriminant(&source)),
        "{error}"
    );
}
