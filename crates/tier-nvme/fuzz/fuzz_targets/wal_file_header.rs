#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tier_nvme::fuzzing::run("wal_file_header", bytes));
