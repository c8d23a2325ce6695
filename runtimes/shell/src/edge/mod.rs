//! The edge: published objects, HTTPS content and grants, and the port of the edge role machine.

pub mod api;
pub mod catalogue;
pub mod conditional;
pub mod config;
pub mod content;
pub mod error;
pub mod pace;
pub mod policy;
pub mod publish;
pub mod range;
pub mod shelf;

pub use config::{CnAddr, EdgeConfig};
pub use error::Error;
pub use publish::{Change, Publish, Published, Unpublished, objects, publish, unpublish};
