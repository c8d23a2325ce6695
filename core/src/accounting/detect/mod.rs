//! Detection (DESIGN §10.6): what the ledger's logs say of who may cheat within what settlement cannot refuse.
//! Findings are statistical: they choose whom to challenge and whom to serve by edges alone, never whom to refuse a
//! download.

pub mod affinity;
pub mod cliques;
pub mod demand;
pub mod odds;
pub mod travel;

pub use affinity::{Affinity, Near, Offer, Pair};
pub use cliques::Clique;
pub use demand::{Demand, Repeated};
pub use travel::{Sighting, Travel};
