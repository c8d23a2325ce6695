//! Tests of the whole system on a runtime and of the built binary. They are written once; the including crate names
//! the runtime and the binary (`crate::Rt`, `crate::BINARY`). Each runtime has one such crate, because each compiles
//! the whole shell.

#![allow(clippy::clone_on_copy, reason = "of one runtime, not of all")]

mod books;
mod commands;
mod crew;
mod floods;
mod gets;
mod holders;
mod http;
mod mobility;
mod networks;
mod outages;
mod outputs;
mod peers;
mod publishing;
mod reasons;
mod rot;
mod scenarios;
mod servers;
mod signals;
mod tour;

/// Reports that a test is skipped, and why. The line goes past the test harness, which hides what a passing test
/// prints. Where no test may be skipped, the test fails.
fn skip(why: &str) {
    use std::io::Write as _;
    assert!(std::env::var_os("SWARMEDGE_REQUIRE_ALL").is_none(), "needed for this test: {why}");
    let line = format!("SKIPPED: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
