//! Roles: client, edge, CN, DN, STUN and ledger. Each is one state machine, composed of machines of the other
//! modules.

pub mod client;
pub mod cn;
pub mod dn;
pub mod edge;
pub mod ledger;
pub mod stun;
