//! The client role: the background process that downloads and shares, its local API, and the commands that speak to it.

pub mod desk;
pub mod local;
pub mod protocol;
mod rate;
