#![no_main]

use libfuzzer_sys::fuzz_target;
use weightstore::Sketch;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(sketch) = Sketch::from_bytes(bytes) {
        assert_eq!(sketch.to_bytes()[..], *bytes);
        assert_eq!(sketch.likeness(&sketch).map(|same| same.relative_change), Some(0.0));
    }
});
