#![no_main]

mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::write("batch_header"), |bytes: &[u8]| tier_nvme::fuzzing::run(
    "batch_header", bytes
));
