//! Detection: finds in the ledger's logs the clients that may cheat within the limits of settlement. Findings are
//! statistical: they choose clients to challenge or to serve by edges alone, and never refuse a download.

pub mod affinity;
pub mod cliques;
pub mod demand;
pub mod odds;
pub mod travel;

pub use affinity::{Affinity, Near, Offer, Pair};
pub use cliques::Clique;
pub use demand::{Demand, Repeated};
pub use travel::{Sighting, Travel};
