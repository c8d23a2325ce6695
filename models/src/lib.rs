//! One world, many explorers: the production machines in a [`world::World`] whose every step is a [`world::Action`],
//! explored exhaustively by the models, randomly by the simulator and the fuzzer, and step by step by a recorded
//! [`trace`], always against the same named rules.
//!
//! Each model is a folder: its world, its rules, its seeded defects, and in `model.rs` its bounds for stateright.
#![cfg_attr(test, allow(clippy::wildcard_enum_match_arm, clippy::type_complexity))]

pub mod bench;
pub mod blames;
pub mod check;
pub mod clones;
pub mod control;
pub mod discovery;
pub mod download;
pub mod grants;
pub mod logs;
pub mod mapping;
pub mod month;
pub mod nat;
pub mod notices;
pub mod offers;
pub mod punching;
pub mod quarantine;
pub mod receipts;
pub mod rekey;
pub mod rng;
pub mod rule;
pub mod scenario;
pub mod seeded;
mod shim;
pub mod sim;
pub mod spool;
pub mod toy;
pub mod trace;
pub mod usage;
pub mod world;
