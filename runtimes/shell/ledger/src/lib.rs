//! The ledger: its database with one writer ([`Store`]), its port, and the queries of reports, audits and exports
//! ([`Reader`]).
// tests may match one variant of an enum with a wildcard for the rest
// printing goes through `terminal::out`, since `println!` panics on a closed pipe
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

pub mod backup;
#[cfg(test)]
mod backup_tests;
pub mod balance;
pub mod blamed;
mod clock;
pub mod close;
#[cfg(test)]
mod close_tests;
mod columns;
pub mod config;
mod connection;
mod database;
mod day;
pub mod erase;
#[cfg(test)]
mod erase_tests;
pub mod evidence;
pub mod export;
pub mod fill;
pub mod gaps;
mod gather;
mod heads;
mod kind;
mod line;
mod network;
pub mod parquet;
#[cfg(test)]
mod parquet_tests;
mod places;
pub mod port;
#[cfg(test)]
#[path = "../../tests/shared/postgres.rs"]
mod postgres;
mod proven;
pub mod quarantine;
#[cfg(test)]
mod quarantine_tests;
mod reader;
pub mod report;
#[cfg(test)]
mod report_tests;
mod restored;
mod rollup;
mod rows;
mod settle;
mod spans;
pub mod store;
mod successors;
pub mod suspects;
#[cfg(test)]
mod suspects_tests;
#[cfg(test)]
mod tests;
pub mod usage;

pub use database::Database;
pub use day::Day;
pub use places::Spot;
pub use port::open;
pub use reader::Reader;
pub use store::Store;
pub use usage::{DownloadUsage, Filter, PlainUsage, UploaderUsage};
