//! Values that bring their checksum along.

use core_view::BufferMut;
use proptest::prelude::*;
use tier_nvme::sim::SimVolume;
use tier_nvme::{CheckedValue, CompressionType, NvmeStore, WriteBatch};

/// A value of a batch: its bytes, where in a page they begin, and whether its checksum is taken before.
#[derive(Debug, Clone)]
struct Made {
    bytes: Vec<u8>,
    start: usize,
    is_checked: bool,
}

impl Made {
    fn put(&self, batch: WriteBatch, key: String) -> WriteBatch {
        let len = self.start + self.bytes.len();
        let mut memory = BufferMut::zeroed(len.max(1), 4096).unwrap();
        let mut value = memory.split_off(self.start);
        drop(value.split_off(self.bytes.len()));
        value.copy_from_slice(&self.bytes);
        match self.is_checked {
            true => batch.put_checked(key, CheckedValue::new(value)),
            false => batch.put(key, value),
        }
    }
}

/// Packed, paged, and long ones, which go to the device from where they are if they begin on a page.
fn made() -> impl Strategy<Value = Made> {
    let lens = prop_oneof![
        0_usize..600,
        4090_usize..4100,
        30_000_usize..34_000,
        Just(65_536_usize)
    ];
    let parts = (
        lens,
        any::<u8>(),
        1_usize..300,
        prop_oneof![Just(0), 1_usize..5000],
    );
    (parts, any::<bool>()).prop_map(|((len, seed, period, start), is_checked)| Made {
        // A short period is what LZ4 finds.
        bytes: (0..len).map(|i| (i % period * 37) as u8 ^ seed).collect(),
        start,
        is_checked,
    })
}

fn check(store: &NvmeStore, values: &[Made]) {
    for (number, made) in values.iter().enumerate() {
        let found = store.read_direct(number.to_string()).unwrap();
        assert_eq!(found.as_deref(), Some(&made.bytes[..]), "value {number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn checked_values_are_stored_as_others_are(
        values in proptest::collection::vec(made(), 1..12),
        is_compressed: bool,
        is_killed: bool,
    ) {
        let compression = match is_compressed {
            true => CompressionType::LZ4,
            false => CompressionType::None,
        };
        let config = super::config().with_segment_bytes(2 << 20).with_compression(compression);
        let volume = SimVolume::new(3);
        let open = || NvmeStore::on_volume(volume.handle(), config.clone()).unwrap();
        let store = open();
        let puts = values.iter().enumerate();
        let batch = puts.fold(WriteBatch::new(), |batch, (number, made)| {
            made.put(batch, number.to_string())
        });
        store.write_batch(batch).unwrap();
        check(&store, &values);
        if is_killed {
            volume.kill();
            drop(store);
        } else {
            store.close().unwrap();
        }
        // Opening and looking at all of it compare every checksum that was recorded with the bytes.
        let store = open();
        check(&store, &values);
        prop_assert!(store.verify().unwrap().is_whole());
    }
}

#[test]
fn a_checked_value_gives_its_bytes_back() {
    let value = CheckedValue::new(vec![1, 2, 3]);
    assert_eq!(value[..], [1, 2, 3]);
    assert_eq!(value.into_inner()[..], [1, 2, 3]);
}
