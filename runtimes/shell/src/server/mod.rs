//! The servers of the control plane: the ports of their role machines, and what starts them.

pub mod cn;
pub mod config;
pub mod dn;
pub mod geo;
pub mod ledger;
pub mod stun;
mod withdrawn;
