//! The edge: published objects, HTTPS content and grants, and the port of the edge role machine.

mod access;
pub mod api;
pub mod catalogue;
pub mod conditional;
pub mod config;
pub mod content;
pub mod door;
pub mod error;
mod grants;
pub mod pace;
pub mod policy;
mod port;
mod possession;
pub mod provider_keys;
pub mod publish;
pub mod range;
pub mod routes;
pub mod server;
pub mod shelf;
pub mod spool;
mod tally;

pub use config::{CnAddr, EdgeConfig};
pub use error::Error;
pub use publish::{Change, Publish, Published, Unpublished, objects, publish, unpublish};
pub use server::{open, open_on};

#[cfg(test)]
pub(crate) mod tests;
