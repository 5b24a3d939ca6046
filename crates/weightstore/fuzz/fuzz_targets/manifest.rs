#![no_main]

mod fixture;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use weightstore::{EncodedSink, EncodedSource, NativeStore};

struct Fixture {
    store: NativeStore,
    manifest: Vec<u8>,
    calls: u32,
}

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new(Fixture::new());
}

impl Fixture {
    fn new() -> Self {
        let store = fixture::family();
        let manifest = store.encoded_model("base").unwrap().unwrap().manifest;
        Self {
            store,
            manifest,
            calls: 0,
        }
    }
}

// A hostile manifest, beside the tensors that a true one names: what is taken is that of a model.
fuzz_target!(|input: (bool, Vec<(u32, u8)>, u32, Vec<u8>)| {
    let (changes_true, changes, cut, whole) = input;
    FIXTURE.with_borrow_mut(|fixture| {
        fixture.calls += 1;
        if fixture.calls > fixture::CALLS_MAX {
            *fixture = Fixture::new();
        }
        let bytes = match changes_true {
            true => {
                // Cut off one time in eight.
                let len = if cut % 8 == 0 { cut >> 16 } else { u32::MAX };
                fixture::changed(&fixture.manifest, &changes, len)
            }
            false => whole,
        };
        if fixture.store.publish_model("hostile", &bytes, true).is_ok() {
            let taken = fixture.store.encoded_model("hostile").unwrap().unwrap();
            // The content hash: a model that is there already keeps its files' names and its facts.
            assert_eq!(taken.manifest[8..40], bytes[8..40]);
        }
    });
});
