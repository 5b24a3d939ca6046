//! Single flipped bits in a store that was closed cleanly: named by `verify`, never served.
//!
//! `STEPWELL_FLIPS` sets how many bits are flipped at random (60 unless given), `STEPWELL_SEED` which.
#![expect(clippy::unwrap_used, reason = "tests")]

mod flipped;
mod store;

use std::env;

use flipped::Outcome;
use store::Store;

/// Flips one bit and demands that this damage is named; returns how many were flipped so.
fn detected(store: &Store, places: Vec<(String, u64)>, kind: &str, name: &str) -> usize {
    let count = places.len();
    for (file, offset) in places {
        let outcome = store.flip(&file, offset, 3);
        let Outcome::Named(items) = &outcome else {
            unreachable!("a flip in {name} of {file} at {offset} was not seen");
        };
        assert!(
            items
                .iter()
                .any(|item| item.kind == kind && item.name.contains(name)),
            "{file} at {offset}: {outcome:?}"
        );
    }
    count
}

#[test]
fn each_structure_is_named() {
    let store = Store::make();
    for (file, offset, name) in [
        ("STORE", 20, "superblock copy 0"),
        ("STORE", 4096 + 40, "superblock copy 1"),
        ("STORE", 4096 + 3000, "superblock copy 1"),
        ("CHECKPOINT-A", 9, "CHECKPOINT-A"),
        ("CHECKPOINT-A", 4096 + 90, "CHECKPOINT-A"),
        ("CHECKPOINT-B", 50, "CHECKPOINT-B"),
        ("CHECKPOINT-B", 4096 + 2, "CHECKPOINT-B"),
    ] {
        detected(&store, vec![(file.to_owned(), offset)], "structure", name);
    }
    let segments = store.find(b"STEPSEGM");
    assert!(segments.len() >= 2, "{segments:?}");
    detected(
        &store,
        shifted(&segments, 34),
        "structure",
        "segment header",
    );
    let batches = store.find(b"STEPBTCH");
    assert!(batches.len() >= 4, "{batches:?}");
    detected(&store, shifted(&batches, 1), "structure", "batch header");
    detected(&store, shifted(&batches, 100), "structure", "batch header");
}

#[test]
fn records_and_content_are_named_by_what_they_hold() {
    let store = Store::make();
    for (magic, kind, live) in [(b"SWOB", "tensor", 9), (b"SWMF", "model", 2)] {
        let places = store.find(magic);
        let mut named = 0;
        for (file, offset) in &places {
            match store.flip(file, offset + 14, 0) {
                Outcome::Named(items) => {
                    assert!(items.iter().any(|item| item.kind == kind), "{items:?}");
                    named += 1;
                }
                Outcome::Unchanged => {}
            }
        }
        // A removed model's records are dead space.
        assert_eq!(named, live, "{kind}");
        assert!(
            places.len() > live,
            "{kind}: nothing of the removed model is left"
        );
    }
    for (content, model) in store.live_content() {
        let places = store.find(&content);
        assert_eq!(places.len(), 1);
        let (file, offset) = places.first().unwrap();
        let Outcome::Named(items) = store.flip(file, offset + 17, 6) else {
            unreachable!("a flip in the content of {model} was not seen");
        };
        let users = |item: &flipped::Item| item.models.iter().any(|user| user.starts_with(model));
        assert!(
            items
                .iter()
                .any(|item| item.kind == "tensor" && users(item))
        );
    }
    for content in store.dead_content() {
        for (file, offset) in store.find(&content) {
            assert!(matches!(store.flip(&file, offset, 1), Outcome::Unchanged));
        }
    }
}

#[test]
fn random_flips_give_no_wrong_answer() {
    let number =
        |name: &str, default: u64| env::var(name).map_or(default, |text| text.parse().unwrap());
    let (flips, seed) = (number("STEPWELL_FLIPS", 60), number("STEPWELL_SEED", 1));
    let store = Store::make();
    let mut named = 0;
    for place in store.random_places(flips, seed) {
        let outcome = store.flip(&place.file, place.offset, place.bit);
        named += u64::from(matches!(outcome, Outcome::Named(_)));
    }
    println!(
        "{flips} flips, seed {seed}: {named} named, {} in dead space",
        flips - named
    );
    assert!(
        flips < 20 || named > flips / 10,
        "too few flips met anything"
    );
    // Nothing that only reads has written.
    store.check_unchanged();
}

fn shifted(places: &[(String, u64)], by: u64) -> Vec<(String, u64)> {
    let shift = |(file, offset): &(String, u64)| (file.clone(), offset + by);
    places.iter().map(shift).collect()
}
