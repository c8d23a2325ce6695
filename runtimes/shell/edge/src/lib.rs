//! The edge: published objects, HTTPS content and grants, and the port of the edge role machine.
// a test names the one variant that it expects
// what prints goes through `terminal::out`, which a closed pipe does not upset
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

mod access;
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
mod tally;
pub mod torrent;

pub use config::EdgeConfig;
pub use error::Error;
pub use publish::{Change, Publish, Published, Unpublished, objects, publish, unpublish};
pub use server::{open, open_on};
pub use swarmedge_ground::edge_api::CnAddr;

#[cfg(test)]
pub(crate) mod tests;
