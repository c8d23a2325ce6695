#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| swarmedge_fuzz::run("dn_inputs", bytes));
