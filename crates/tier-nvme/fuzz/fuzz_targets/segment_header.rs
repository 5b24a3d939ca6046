#![no_main]

mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::write("segment_header"), |bytes: &[u8]| tier_nvme::fuzzing::run(
    "segment_header", bytes
));
