//! Everything runtime-neutral around the core: the drive loop, TLS, HTTP, QUIC, store, ledger, configuration and
//! command line. It does what the machines' outputs say and reports back; it decides nothing about a protocol.
// a test names the one variant that it expects
// what prints goes through `terminal::out`, which a closed pipe does not upset
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

pub mod cli;
pub mod client;
pub mod config;
mod database;
mod disk;
pub mod drive;
pub mod edge;
pub mod edge_client;
pub mod error;
pub mod files;
pub mod health;
pub mod host;
pub mod http;
pub mod keys;
pub mod link;
pub mod mailbox;
pub mod nat;
pub mod ops;
pub mod peers;
pub mod quic;
pub mod rt;
pub mod seals;
pub mod server;
pub mod store;
mod sync;
pub mod tcp;
pub mod terminal;
pub mod tls;
pub mod torrent;

pub use cli::main;
