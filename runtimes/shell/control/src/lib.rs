//! The servers of the control plane: the ports of their role machines, and what starts them.
// a test names the one variant that it expects
// what prints goes through `terminal::out`, which a closed pipe does not upset
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

pub mod cn;
pub mod config;
pub mod dn;
pub mod geo;
mod notices;
pub mod stun;
