//! Accounting (DESIGN §10) as pure functions over values: certificates, providers' tokens, grants, introductions,
//! receipts, clients' logs, the settlement of a download's records into a bill, the audit of closed days, and the
//! detection of clients that cheat.

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

pub use certs::{CertError, Trust};
pub use spans::Spans;
