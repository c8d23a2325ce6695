//! One world, many explorers (DESIGN §2, §14): the production machines in a [`world::World`] whose every step is an
//! [`world::Action`], explored exhaustively by the models, randomly by the simulator and the fuzzer, and step by step
//! by a recorded [`trace`], always against the same named rules.

pub mod bench;
pub mod clones_world;
pub mod control_world;
pub mod download_world;
#[cfg(feature = "arbitrary")]
pub mod fuzz;
#[cfg(feature = "arbitrary")]
mod fuzz_books;
#[cfg(feature = "arbitrary")]
mod fuzz_connectivity;
#[cfg(feature = "arbitrary")]
mod fuzz_mapping;
#[cfg(feature = "arbitrary")]
mod fuzz_settling;
pub mod grants_world;
pub mod logs_world;
pub mod mapping_world;
pub mod month;
pub mod nat;
pub mod nat_world;
pub mod offers_world;
pub mod punch_world;
pub mod quarantine_world;
pub mod receipts_world;
pub mod rekey_world;
pub mod rng;
pub mod rule;
pub mod scenario;
pub mod sim;
pub mod spool_world;
pub mod toy;
pub mod trace;
pub mod usage_world;
pub mod world;
