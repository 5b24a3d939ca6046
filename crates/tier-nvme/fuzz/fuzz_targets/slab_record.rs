#![no_main]

mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::write("slab_record"), |bytes: &[u8]| tier_nvme::fuzzing::run(
    "slab_record", bytes
));
