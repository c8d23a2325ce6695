//! The servers of the control plane: the ports of their role machines, and what starts them.

pub mod ledger;
pub mod sockets;
