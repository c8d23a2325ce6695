//! Accounting: certificates, providers' tokens, grants and introductions as values with pure rules, and the
//! settlement of a download's records.

pub mod audit;
pub mod certs;
pub mod clones;
pub mod conduct;
pub mod detect;
pub mod edge_auth;
pub mod epochs;
pub mod evidence;
pub mod grants;
pub mod introductions;
pub mod logs;
pub mod possession;
pub mod quarantine;
pub mod receipts;
pub mod rekeys;
pub mod settlement;
mod spans;
pub mod tickets;

pub use certs::{CertError, Trust};
pub use spans::Spans;
