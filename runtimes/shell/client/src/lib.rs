//! The client: the port of its machine, its store, its connections to peers and edges, and the process that commands
//! reach over a local socket.
// a test names the one variant that it expects
// what prints goes through `terminal::out`, which a closed pipe does not upset
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

pub mod client;
pub mod edge_client;
pub mod peers;
pub mod store;
// its cfg is given to one crate at a time
#[path = "../../ground/src/sync.rs"]
mod sync;

// the disk in memory, which the ground's own tests use too
#[cfg(test)]
use swarmedge_ground::disk;
#[cfg(test)]
#[path = "../../ground/src/disk/mem.rs"]
mod mem_disk;
