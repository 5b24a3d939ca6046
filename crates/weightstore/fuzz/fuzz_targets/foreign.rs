#![no_main]

use libfuzzer_sys::fuzz_target;
use weightstore::{ByteSource, ForeignFile};

// Hostile bytes as a model file of any format, read whole; and in the middle of the archive that they are.
fuzz_target!(|input: &[u8]| {
    let Ok(file) = ForeignFile::open("model.bin", input) else {
        return;
    };
    let Ok(len) = file.len_bytes() else { return };
    let mut bytes = vec![0; len.min(1 << 22) as usize];
    let whole = file.read_exact_at(0, &mut bytes).is_ok() && file.version().is_ok();
    if whole && let Some(rest) = bytes.get(bytes.len() / 2..) {
        let mut again = vec![0; rest.len()];
        let read = file.read_exact_at((bytes.len() - rest.len()) as u64, &mut again);
        assert!(read.is_ok() && again == rest);
    }
});
