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
pub mod close;
#[cfg(test)]
mod close_tests;
pub mod config;
mod database;
mod day;
pub mod evidence;
pub mod export;
mod fill;
pub mod gaps;
mod gather;
mod heads;
mod line;
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
pub mod report;
#[cfg(test)]
mod report_tests;
mod rollup;
mod rows;
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
pub use store::Store;
pub use usage::{DownloadUsage, Filter, PlainUsage, Reader, UploaderUsage};
