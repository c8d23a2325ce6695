//! The control session: the client's side ([`client`]), and what both sides and the other server links share.

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
