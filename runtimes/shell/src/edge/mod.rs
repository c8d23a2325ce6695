//! The edge: published objects, HTTPS content and grants, and the port of the edge role machine.

pub mod catalogue;
pub mod config;
pub mod error;
pub mod policy;
pub mod publish;

pub use config::{CnAddr, EdgeConfig};
pub use error::Error;
pub use publish::{Change, Publish, Published, Unpublished, objects, publish, unpublish};
