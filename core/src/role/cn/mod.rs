//! The connection node: the end of the clients' persistent connections. It checks grants, has DNs choose peers, signs
//! introductions, passes them on, and hands usage records to the ledger. All that it knows of clients is soft state.

pub mod io;

pub use io::{Config, Input, Metric, Output};
