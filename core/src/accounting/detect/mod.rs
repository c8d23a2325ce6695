//! Detection (DESIGN §10.6): searches the ledger's logs for clients that may cheat in ways that settlement cannot
//! refuse.
//!
//! - [`affinity`] and [`cliques`]: clients that take from one another more often than offers explain;
//! - [`demand`]: the same version again and again;
//! - [`travel`]: logins from places too far apart;
//! - [`odds`]: the arithmetic of unlikely counts.
//!
//! Findings are statistical: they choose which clients to challenge and which to serve by edges alone, never which to
//! refuse a download.

pub mod affinity;
pub mod cliques;
pub mod demand;
pub mod odds;
pub mod travel;

pub use affinity::{Affinity, Near, Offer, Pair};
pub use cliques::Clique;
pub use demand::{Demand, Repeated};
pub use travel::{Sighting, Travel};
