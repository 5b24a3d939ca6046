#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tier_nvme::fuzzing::run("slab_table", bytes));
