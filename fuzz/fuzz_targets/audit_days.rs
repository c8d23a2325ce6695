#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| swarmedge_core::testing::fuzz::run("audit_days", bytes));
