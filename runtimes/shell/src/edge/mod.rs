//! The edge: published objects, HTTPS content and grants, and the port of the edge role machine.

pub mod config;

pub use config::{CnAddr, EdgeConfig};
