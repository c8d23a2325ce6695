//! The base crate of the shell, used by every role and command: errors, files, the runtime trait, mailboxes, keys,
//! TLS, HTTP, QUIC, TCP, links between servers, the drive loop, the host of a server's roles, and the spool. It makes
//! no protocol decisions.
// tests may match one variant of an enum with a wildcard for the rest
// printing goes through `terminal::out`, since `println!` panics on a closed pipe
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

pub mod client_version;
pub mod config;
pub mod database;
pub mod disk;
pub mod drive;
pub mod edge_api;
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
pub mod policy;
pub mod quic;
pub mod reach;
pub mod rt;
pub mod seals;
pub mod spool;
mod sync;
pub mod tcp;
pub mod terminal;
pub mod tls;
