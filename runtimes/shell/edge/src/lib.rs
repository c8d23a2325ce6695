//! The edge server: published objects, HTTPS content, grants, and the port that performs the edge machine's outputs.
// tests may match one variant of an enum with a wildcard for the rest
// printing goes through `terminal::out`, since `println!` panics on a closed pipe
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

mod access;
mod answer;
pub mod catalogue;
pub mod conditional;
pub mod config;
pub mod content;
pub mod damage;
pub mod error;
mod grants;
pub mod handle;
pub mod keeper;
pub mod live;
mod mend;
mod notice_signer;
mod notices;
pub mod pace;
pub mod policy;
mod port;
mod possession;
pub mod provider_keys;
pub mod publish;
pub mod published;
pub mod range;
pub mod routes;
mod scrub;
pub mod server;
mod staging;
pub mod stored;
mod tally;
pub mod torrent;

pub use config::EdgeConfig;
pub use error::Error;
pub use publish::{Change, Publish, Published, Unpublished, objects, publish, set_policy, unpublish};
pub use server::{open, open_on};
pub use swarmedge_ground::edge_api::CnAddr;

#[cfg(test)]
pub(crate) mod tests;
