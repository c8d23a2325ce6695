//! The protocol core of Swarmedge: sans-IO state machines for swarming, selection, NAT traversal, sessions and
//! accounting.
//!
//! Nothing here opens a socket or file, reads a clock, draws randomness or logs. Every decision of the system is made
//! here and nowhere else; the shell does what the machines' outputs say.
#![no_std]
// a test names the one variant that it expects
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

extern crate alloc;
// what derives `Arbitrary` counts recursion in a thread-local: for fuzzing and tests only
#[cfg(feature = "arbitrary")]
extern crate std;

pub mod accounting;
pub mod codec;
pub mod content;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod mux;
pub mod nat;
pub mod role;
pub mod selection;
pub mod session;
pub mod swarm;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod wire;

pub use machine::{Cx, Deadlines, Machine, Rng, Time};

/// Whether this build carries what is for tests and models only; never so in a deployed binary.
pub const TESTING: bool = cfg!(feature = "testing");
