#![no_main]

mod fixture;

use std::cell::RefCell;

use core_view::BufferMut;
use libfuzzer_sys::fuzz_target;
use weightstore::{
    EncodedObject, EncodedSink, EncodedSource, NativeStore, WeightHash, WeightStore,
};

/// Whole encoded objects, bases first.
struct Fixture {
    source: NativeStore,
    objects: Vec<Vec<u8>>,
    sink: NativeStore,
    calls: u32,
}

thread_local! {
    static FIXTURE: RefCell<Fixture> = RefCell::new(Fixture::new());
}

impl Fixture {
    fn new() -> Self {
        let source = fixture::family();
        let models = ["base", "tune"].map(|name| source.encoded_model(name).unwrap().unwrap());
        let whole = |hash: &WeightHash| {
            let object = source.encoded(hash).unwrap().unwrap();
            let mut bytes = vec![0; object.len_bytes() as usize];
            source.read_encoded(&object, 0, &mut bytes).unwrap();
            bytes
        };
        let objects = models
            .iter()
            .flat_map(|model| &model.tensors)
            .map(whole)
            .collect();
        Self {
            source,
            objects,
            sink: fixture::store(2),
            calls: 0,
        }
    }

    /// Stores what a hostile sender may send: it is refused, or the tensor is the one of its hash.
    fn take(&mut self, object: &EncodedObject, bytes: &[u8]) {
        self.calls += 1;
        if self.calls > fixture::CALLS_MAX {
            (self.sink, self.calls) = (fixture::store(2), 0);
        }
        let Ok(Some(missing)) = self.sink.stage(object) else {
            return;
        };
        for index in missing {
            let range = object.chunk_range(index).unwrap();
            let chunk = bytes.get(range.start as usize..range.end as usize);
            let Some(chunk) = chunk else { break };
            let chunk = BufferMut::from_vec(chunk.to_vec());
            if self
                .sink
                .stage_chunks(object, vec![(index, chunk)])
                .is_err()
            {
                break;
            }
        }
        let hash = object.hash();
        match self.sink.publish(object) {
            Ok(()) => {
                let stored = self.sink.load(&hash.into()).unwrap().unwrap();
                assert_eq!(stored.compute_hash(), hash);
                if let Ok(Some(known)) = self.source.load(&hash.into()) {
                    assert!(known.bytes() == stored.bytes());
                }
                let _ = self.sink.delete(&hash.into());
            }
            Err(_) => assert!(self.sink.discard(&hash).is_ok()),
        }
    }
}

// A hostile object: all of it, or one that a store made with some bytes changed.
fuzz_target!(|input: (u8, Vec<(u32, u8)>, u32, Vec<u8>)| {
    let (choice, changes, len, whole) = input;
    FIXTURE.with_borrow_mut(|fixture| {
        let known = fixture.objects.get(usize::from(choice) % 5);
        let bytes = match known {
            Some(bytes) => {
                // Cut off one time in eight.
                let len = if len % 8 == 0 { len >> 8 } else { u32::MAX };
                fixture::changed(bytes, &changes, len)
            }
            None => whole,
        };
        let Ok(object) = EncodedObject::parse(&bytes) else {
            return;
        };
        assert_eq!(object.head(), &bytes[..object.head().len()]);
        assert_eq!(EncodedObject::parse(object.head()).unwrap(), object);
        let mut at = object.head().len() as u64;
        for index in 0..object.chunk_count() {
            let range = object.chunk_range(index).unwrap();
            assert_eq!(range.start, at);
            at = range.end;
        }
        assert_eq!(at, object.len_bytes());
        fixture.take(&object, &bytes);
    });
});
