//! Imports, exports, removals and verification side by side.

use std::sync::atomic::{AtomicBool, Ordering};

use weightstore::{NativeStore, WeightError};

use crate::fixture::{add, bytes, get, noise, safetensors, store};

/// A model of tensors that other models have too.
fn model(seed: u64) -> Vec<u8> {
    safetensors(&[
        bytes("shared", noise(7, 300_000)),
        bytes("half", noise(seed % 2, 5000)),
        bytes("third", noise(100 + seed % 3, 200)),
        bytes("own", noise(1000 + seed, 70_000)),
    ])
}

fn churn(store: &NativeStore, thread: u64) {
    for round in 0..20 {
        let name = format!("model-{}", (thread + round) % 4);
        let file = model((thread + round) % 4);
        add(store, &name, &file).unwrap();
        match get(store, &name) {
            // Another thread may have removed it; what is there is whole.
            Ok(restored) => assert!(restored == file),
            Err(WeightError::ModelNotFound { .. }) => {}
            Err(error) => panic!("{name}: {error:?}"),
        }
        match store.remove_model(&name) {
            Ok(_) | Err(WeightError::ModelNotFound { .. }) => {}
            Err(error) => panic!("{name}: {error:?}"),
        }
    }
}

#[test]
fn adding_removing_and_verifying_at_once_loses_nothing() {
    let (_, store) = store();
    let lasting = model(99);
    add(&store, "lasting", &lasting).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let verifier = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let report = store.verify(None).unwrap();
                assert!(report.is_whole(), "{report:?}");
            }
        });
        let churners: Vec<_> = (0..3)
            .map(|thread| {
                scope.spawn({
                    let store = &store;
                    move || churn(store, thread)
                })
            })
            .collect();
        let outcomes: Vec<_> = churners.into_iter().map(|churner| churner.join()).collect();
        done.store(true, Ordering::SeqCst);
        verifier.join().unwrap();
        assert!(outcomes.iter().all(Result::is_ok));
    });
    assert_eq!(get(&store, "lasting").unwrap(), lasting);
    for name in store.models().unwrap() {
        store.remove_model(&name).unwrap();
    }
    let report = store.verify(None).unwrap();
    assert!(report.is_whole() && report.unreachable == 0, "{report:?}");
    assert_eq!(store.stats().unwrap().tensors, 0);
}

/// Adds and removes a model of its own whose tensors the other threads have too.
fn come_and_go(store: &NativeStore, thread: u64) {
    let name = format!("thread-{thread}");
    let file = safetensors(&[bytes("a", noise(1, 40)), bytes("b", noise(2, 4000))]);
    for _ in 0..400 {
        add(store, &name, &file).unwrap();
        assert!(get(store, &name).unwrap() == file);
        store.remove_model(&name).unwrap();
    }
}

#[test]
fn a_removal_takes_nothing_that_an_import_has_found() {
    let (_, store) = store();
    std::thread::scope(|scope| {
        let store = &store;
        for thread in 0..3 {
            scope.spawn(move || come_and_go(store, thread));
        }
    });
    let report = store.verify(None).unwrap();
    assert!(report.is_whole() && report.unreachable == 0, "{report:?}");
    assert_eq!(store.stats().unwrap().tensors, 0);
}
