//! Sessions and links: the client's side of its session with a CN ([`client`]), servers' links to the ledger
//! ([`ledger_link`]), and the parts that several links use.

pub mod backoff;
pub mod client;
pub mod dialer;
pub mod ledger_link;
pub mod wall;

pub use backoff::Backoff;
pub use client::ClientSession;
pub use dialer::Dialer;
pub use ledger_link::LedgerLink;
pub use wall::Wall;
