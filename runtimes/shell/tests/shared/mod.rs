//! Tests of the whole system on a runtime and of the built binary. They are written once; the including crate names
//! the runtime and the binary (`crate::Rt`, `crate::BINARY`). Each runtime has one such crate, because each compiles
//! the whole shell.

#![allow(clippy::clone_on_copy, reason = "of one runtime, not of all")]

mod books;
mod commands;
mod crew;
mod disk_faults;
mod floods;
mod gets;
mod http;
mod mobility;
mod networks;
mod outages;
mod outputs;
mod peers;
mod publishing;
mod rot;
mod scenarios;
mod servers;
mod signals;
