//! The ledger: its database, its port, and reports from it.

pub mod port;
pub mod report;
pub mod store;
#[cfg(test)]
mod tests;

pub use port::open;
pub use report::{DownloadUsage, Filter, PlainUsage, Reader, UploaderUsage};
pub use store::Store;
