#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| swarmedge_fuzz::run("decode_notice", bytes));
