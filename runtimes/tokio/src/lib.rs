//! Swarmedge on tokio: the runtime that every role runs on.

mod rt;

pub use rt::Tokio;
