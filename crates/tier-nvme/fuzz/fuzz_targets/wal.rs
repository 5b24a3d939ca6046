#![no_main]

mod seeds;

libfuzzer_sys::fuzz_target!(init: seeds::write("wal"), |bytes: &[u8]| tier_nvme::fuzzing::run(
    "wal", bytes
));
