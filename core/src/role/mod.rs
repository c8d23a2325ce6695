//! The roles: each composes the machines of the other rooms into one, and is what a process runs.

pub mod client;
pub mod cn;
pub mod dn;
pub mod edge;
pub mod ledger;
pub mod stun;
