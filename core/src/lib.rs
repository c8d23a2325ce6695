//! The protocol core of Swarmedge: sans-IO state machines for swarming, selection, NAT traversal, sessions and
//! accounting.
//!
//! Nothing here opens a socket or file, reads a clock, draws randomness or logs. Each role of the system (client, edge,
//! CN, DN, STUN, ledger) is a [`Machine`] in [`role`], built of the modules beside it. All protocol decisions are made
//! here; the shell performs the machines' outputs.
#![no_std]
// tests match the one variant that they expect
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

extern crate alloc;
// what derives `Arbitrary` counts recursion in a thread-local: for fuzzing and tests only
#[cfg(all(feature = "arbitrary", not(test)))]
extern crate std;

pub mod accounting;
pub mod codec;
pub mod content;
pub mod holdings;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod mux;
pub mod nat;
pub mod notice;
pub mod role;
pub mod selection;
pub mod session;
pub mod swarm;
pub mod wire;

pub use machine::{Cx, Deadlines, Machine, Rng, Time};

/// Test bench of the models' crate, which the core's own tests use too.
#[cfg(test)]
#[path = "../../models/src/bench.rs"]
#[expect(unreachable_pub, reason = "public in the models' crate")]
mod bench;
#[cfg(test)]
#[path = "../../models/src/seeded.rs"]
#[expect(unreachable_pub, dead_code, reason = "public in the models' crate, which uses all of it")]
mod seeded;
#[cfg(test)]
extern crate self as swarmedge_core;
#[cfg(test)]
extern crate std;
