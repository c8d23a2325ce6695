//! Swarmedge on smol: the runtime that every role runs on.

mod quic;
mod rt;

pub use rt::Smol;
