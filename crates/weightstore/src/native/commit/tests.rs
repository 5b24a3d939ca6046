//! A manifest never comes before what it names.

use core_view::DType;
use core_view::safetensors::HeaderBuilder;
use tier_nvme::StorageConfig;
use tier_nvme::sim::SimVolume;

use crate::native::changes::{Changes, NewModel};
use crate::record::{BodyId, FileEntry, Manifest};
use crate::{NativeConfig, NativeStore, WeightError, WeightHash, WeightStore, WeightTensor};

fn store() -> NativeStore {
    let storage = StorageConfig::default().with_segment_bytes(4 << 20);
    let config = NativeConfig::default()
        .with_storage(storage)
        .with_batch_bytes(NativeConfig::BATCH_BYTES_MIN);
    NativeStore::on_volume(SimVolume::new(1).handle(), config).unwrap()
}

/// A model of one tensor of four bytes.
fn model_of(root: WeightHash) -> Changes {
    let header = HeaderBuilder::new().tensor("w", DType::U8, &[4]);
    let header = header.build().unwrap();
    let files = vec![FileEntry {
        name: "model.safetensors".into(),
        len_bytes: header.data_start() + 4,
        sha256: None,
        roots: vec![root],
        header: header.raw().to_vec(),
    }];
    let mut changes = Changes::default();
    changes.model = Some(NewModel {
        name: "m".into(),
        manifest: Manifest {
            content_hash: Manifest::hash_files(&files),
            files,
            index: String::new(),
            metadata: Vec::new(),
        },
        replace: false,
    });
    changes
}

#[test]
fn a_manifest_is_refused_before_its_content() {
    let store = store();
    let weight = WeightTensor::new("w", DType::U8, &[4], vec![1_u8, 2, 3, 4]).unwrap();
    let root = weight.compute_hash();
    let core = store.enter().unwrap();
    let refused = core.commit(model_of(root));
    assert!(
        matches!(
            refused,
            Err(WeightError::Corrupt {
                structure: "model",
                ..
            })
        ),
        "{refused:?}"
    );
    assert!(store.models().unwrap().is_empty());
    assert!(core.blobs.keys_with_prefix(b"m/").is_empty());

    store.store(&weight, None).unwrap();
    core.commit(model_of(root)).unwrap();
    assert_eq!(store.models().unwrap(), ["m"]);
    assert_eq!(store.load_tensor("m", "w").unwrap().bytes(), [1, 2, 3, 4]);
}

#[test]
fn a_tensor_of_any_length_can_be_deleted() {
    // As many chunks as 342 GiB have; a batch has room for the keys of fewer.
    const CHUNKS: u32 = 350_000;
    let store = store();
    let core = store.enter().unwrap();
    let mut changes = Changes::default();
    changes.drop_body(BodyId(7), CHUNKS);
    let mut ledger = core.ledger();
    assert_eq!(core.commit_deletes(&mut ledger, changes).unwrap(), 0);
}
