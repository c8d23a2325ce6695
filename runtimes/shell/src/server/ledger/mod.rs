//! The ledger: its database, its port, and what is read from it.

pub mod backup;
#[cfg(test)]
mod backup_tests;
pub mod balance;
pub mod close;
#[cfg(test)]
mod close_tests;
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
#[path = "../../../tests/shared/postgres.rs"]
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
