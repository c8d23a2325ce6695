//! The whole system on a runtime, and the built binary as a user runs it: written once, for whichever runtime and
//! binary the including crate names (`crate::Rt`, `crate::BINARY`). One crate a runtime: each compiles the whole shell.

#![allow(clippy::clone_on_copy, reason = "of one runtime, not of all")]

mod books;
mod commands;
mod crew;
mod floods;
mod gets;
mod mobility;
mod outputs;
mod peers;
mod scenarios;
mod servers;
mod spool_faults;
