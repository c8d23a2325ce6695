//! A small internet of real Linux NATs in network namespaces, built with `ip` and `nft`. It is removed on drop, on
//! panic and on Ctrl-C; labs of killed processes are removed when the next lab is built.
//!
//! A **core** namespace routes between point-to-point links, one for each site, so that TTLs count down and every
//! packet between two sites can be counted or dropped. Servers are attached to the core directly; a
//! [`Site`](plan::Site) is a router of some [`Kind`] with one or more peers on its LAN. Nothing is created in the
//! host's own network namespace, and no packet from inside reaches the outside. Addresses come from documentation,
//! benchmark and private ranges.
//!
//! ```no_run
//! use swarmedge_natlab::{Kind, Lab, Plan};
//! let lab = Lab::up(&Plan::default().site("home", Kind::PortRestricted).site("cafe", Kind::Symmetric))?;
//! let out = lab.command("home", "ip")?.args(["address"]).output();
//! # Ok::<(), swarmedge_natlab::Error>(())
//! ```

pub mod cdn;
pub mod delay;
pub mod janitor;
pub mod lab;
pub mod latency;
pub mod matrix;
pub mod plan;
pub mod require;
mod rules;
mod run;

pub use lab::Lab;
pub use plan::Plan;
pub use rules::rules;
pub use run::Error;
pub use swarmedge_core::nat::NatBehaviour as Behaviour;
pub use swarmedge_models::nat::{Expect, Kind, expected};
