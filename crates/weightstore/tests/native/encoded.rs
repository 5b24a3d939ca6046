//! Models that move between stores as they are stored.

use core_view::BufferMut;
use tier_nvme::sim::SimVolume;
use weightstore::{
    Codec, EncodedObject, EncodedSink, EncodedSource, GcOptions, ImportOptions, NativeStore,
    SourceFile, TransferJournal, WeightError, WeightHash, WeightStore,
};

use crate::fixture::{add, bf16, config, get, safetensors, tuned, varied, weights};

/// Chunks that are sent at once.
const GROUP: usize = 2;

/// A store of two models, the second of which is stored as differences from the first.
fn family() -> NativeStore {
    let config = config().with_codec(Codec::Auto);
    let store = NativeStore::on_volume(SimVolume::new(1).handle(), config).unwrap();
    let base = weights(1, 9 << 17);
    let tune = tuned(&base, 1e-3, 2);
    let file = |numbers: &[f32]| safetensors(&[bf16("layer.0", 1 << 9, numbers)]);
    add(&store, "base", &file(&base)).unwrap();
    let added = add(&store, "tune", &file(&tune)).unwrap();
    assert_eq!(added.delta_tensors, 1);
    add(&store, "varied", &varied(3)).unwrap();
    store
}

fn chunk(source: &NativeStore, object: &EncodedObject, index: u32) -> BufferMut {
    let range = object.chunk_range(index).unwrap();
    let mut bytes = vec![0; (range.end - range.start) as usize];
    source
        .read_encoded(object, range.start, &mut bytes)
        .unwrap();
    BufferMut::from_vec(bytes)
}

/// Moves a tensor, its base first; counts the chunks that were sent and acknowledged.
fn pull_tensor(
    source: &NativeStore,
    sink: &NativeStore,
    hash: &WeightHash,
    sent: &mut usize,
) -> Result<(), WeightError> {
    let object = source.encoded(hash).unwrap().unwrap();
    if let Some(base) = object.base() {
        pull_tensor(source, sink, &base, sent)?;
    }
    let Some(missing) = sink.stage(&object)? else {
        return Ok(());
    };
    for group in missing.chunks(GROUP) {
        let chunks = group
            .iter()
            .map(|index| (*index, chunk(source, &object, *index)));
        sink.stage_chunks(&object, chunks.collect())?;
        *sent += group.len();
    }
    sink.publish(&object)
}

fn pull(
    source: &NativeStore,
    sink: &NativeStore,
    names: &[&str],
    sent: &mut usize,
) -> Result<(), WeightError> {
    for name in names {
        let model = source.encoded_model(name).unwrap().unwrap();
        for hash in &model.tensors {
            pull_tensor(source, sink, hash, sent)?;
        }
        sink.publish_model(name, &model.manifest, false)?;
    }
    Ok(())
}

#[test]
fn models_move_without_being_decoded() {
    let source = family();
    let sink = NativeStore::on_volume(SimVolume::new(2).handle(), config()).unwrap();
    let names = ["tune", "base", "varied"];
    pull(&source, &sink, &names, &mut 0).unwrap();
    for name in names {
        assert!(
            get(&sink, name).unwrap() == get(&source, name).unwrap(),
            "{name}"
        );
    }
    // As small as they were: nothing was encoded anew.
    let (from, to) = (source.stats().unwrap(), sink.stats().unwrap());
    assert_eq!(from.tensors, to.tensors);
    assert!(to.stored_bytes <= from.stored_bytes);
    let report = sink.verify(None).unwrap();
    assert!(report.is_whole() && report.unreachable == 0, "{report:?}");
    assert!(sink.staged().unwrap().is_empty());
    // Again, nothing moves.
    let mut sent = 0;
    pull(&source, &sink, &names, &mut sent).unwrap();
    assert_eq!(sent, 0);
    sink.remove_model("varied").unwrap();
    assert!(get(&sink, "tune").is_ok());
}

#[test]
fn a_manifest_of_the_same_content_is_taken_if_it_is_to_replace() {
    let source = family();
    let sink = NativeStore::on_volume(SimVolume::new(2).handle(), config()).unwrap();
    pull(&source, &sink, &["base"], &mut 0).unwrap();
    let before = sink.model("base").unwrap();
    let file = get(&source, "base").unwrap();
    let renamed = SourceFile {
        name: "renamed.safetensors",
        source: &file,
    };
    let options = ImportOptions::default().with_replace(true);
    source.add_model("base", renamed, &options).unwrap();
    let manifest = source.encoded_model("base").unwrap().unwrap().manifest;
    sink.publish_model("base", &manifest, false).unwrap();
    assert_eq!(sink.model("base").unwrap(), before);
    sink.publish_model("base", &manifest, true).unwrap();
    let files = sink.model("base").unwrap().files;
    assert_eq!(files[0].name, "renamed.safetensors");
    assert!(get(&sink, "base").unwrap() == file);
}

#[test]
fn a_base_comes_first() {
    let source = family();
    let sink = NativeStore::on_volume(SimVolume::new(2).handle(), config()).unwrap();
    let model = source.encoded_model("tune").unwrap().unwrap();
    let object = source.encoded(&model.tensors[0]).unwrap().unwrap();
    assert!(matches!(
        sink.stage(&object),
        Err(WeightError::BaseNotFound { base, .. }) if Some(base) == object.base()
    ));
    assert!(matches!(
        sink.publish_model("tune", &model.manifest, false),
        Err(WeightError::Corrupt { .. })
    ));
    let mut manifest = model.manifest;
    manifest[20] ^= 1;
    assert!(sink.publish_model("tune", &manifest, false).is_err());
    assert!(sink.models().unwrap().is_empty());
}

#[test]
fn a_transfer_survives_power_loss_at_any_instant() {
    let source = family();
    let names = ["base", "tune"];
    let mut whole = 0;
    let calm = NativeStore::on_volume(SimVolume::new(3).handle(), config()).unwrap();
    pull(&source, &calm, &names, &mut whole).unwrap();
    let files = names.map(|name| get(&source, name).unwrap());
    let (mut resumed, mut cut) = (0, 0);
    for after in (1..28).step_by(3) {
        let volume = SimVolume::new(after);
        let sink = NativeStore::on_volume(volume.handle(), config()).unwrap();
        volume.fail_power_after(after);
        let mut acknowledged = 0;
        let outcome = pull(&source, &sink, &names, &mut acknowledged);
        drop(sink);
        volume.crash();
        let sink = NativeStore::on_volume(volume.handle(), config()).unwrap();
        let report = sink.verify(None).unwrap();
        assert!(report.is_whole(), "after {after}: {report:?}");
        // What is staged is no garbage.
        sink.gc(GcOptions::default()).unwrap();
        let mut rest = 0;
        pull(&source, &sink, &names, &mut rest).unwrap();
        for (name, file) in names.iter().zip(&files) {
            assert!(get(&sink, name).unwrap() == *file, "after {after}: {name}");
        }
        if outcome.is_err() {
            cut += 1;
            // A tensor that was published without its model may have been collected; what is staged may not.
            resumed += usize::from(rest < whole);
        }
        let report = sink.verify(None).unwrap();
        assert!(
            report.is_whole() && report.unreachable == 0,
            "after {after}: {report:?}"
        );
        assert!(sink.staged().unwrap().is_empty());
    }
    assert!(cut > 4 && resumed > 1, "{cut} cut, {resumed} resumed");
}

#[test]
fn what_was_acknowledged_is_not_asked_for_again() {
    let source = family();
    let model = source.encoded_model("base").unwrap().unwrap();
    let object = source.encoded(&model.tensors[0]).unwrap().unwrap();
    assert!(object.chunk_count() >= 3);
    let volume = SimVolume::new(5);
    let sink = NativeStore::on_volume(volume.handle(), config()).unwrap();
    sink.stage(&object).unwrap();
    sink.record("push base", b"part 1").unwrap();
    sink.stage_chunks(&object, vec![(1, chunk(&source, &object, 1))])
        .unwrap();
    volume.fail_power_after(0);
    let lost = sink.stage_chunks(&object, vec![(2, chunk(&source, &object, 2))]);
    assert!(lost.is_err());
    drop(sink);
    volume.crash();
    let sink = NativeStore::on_volume(volume.handle(), config()).unwrap();
    assert_eq!(sink.gc(GcOptions::default()).unwrap().removed_chunks, 0);
    let missing = sink.stage(&object).unwrap().unwrap();
    assert!(!missing.contains(&1) && missing.contains(&0));
    assert_eq!(
        sink.recorded("push base").unwrap().as_deref(),
        Some(&b"part 1"[..])
    );
    // Once it is discarded, nothing of it is left.
    assert!(sink.discard(&object.hash()).unwrap());
    assert!(sink.forget("push base").unwrap());
    let keys = sink.blobs().keys_with_prefix(b"");
    assert!(keys.iter().all(|key| key.starts_with(b"s/")));
}

#[test]
fn an_encoding_that_changed_is_noticed() {
    let source = family();
    let model = source.encoded_model("tune").unwrap().unwrap();
    let object = source.encoded(&model.tensors[0]).unwrap().unwrap();
    let base = object.base().unwrap();
    let mut first = [0; 64];
    source.read_encoded(&object, 0, &mut first).unwrap();
    source.remove_model("base").unwrap();
    source.gc(GcOptions::default().with_rebase(true)).unwrap();
    assert!(!source.exists(&base.into()).unwrap());
    assert!(matches!(
        source.read_encoded(&object, 0, &mut first),
        Err(WeightError::Moved { .. })
    ));
    let now = source.encoded(&model.tensors[0]).unwrap().unwrap();
    assert_ne!(now.tag(), object.tag());
    assert_eq!(now.base(), None);
    // A transfer of the one does not go on with chunks of the other.
    let sink = NativeStore::on_volume(SimVolume::new(2).handle(), config()).unwrap();
    sink.stage(&now).unwrap();
    assert!(matches!(
        sink.stage_chunks(&object, Vec::new()),
        Err(WeightError::NotStaged { .. })
    ));
}
