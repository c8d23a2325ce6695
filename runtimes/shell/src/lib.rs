//! The shell: everything around the core that is independent of the runtime: the drive loop, TLS, HTTP, QUIC, store,
//! ledger, configuration and command line. The shell performs the outputs of the machines and reports the results as
//! inputs; it decides nothing about a protocol.
// tests may match one variant of an enum with a wildcard for the rest
// printing goes through `terminal::out`, since `println!` panics on a closed pipe
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
