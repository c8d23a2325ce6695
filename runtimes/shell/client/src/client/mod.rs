//! The client role: the background process that downloads and shares, its local API, and the commands that speak to it.

pub mod api_state;
pub mod commands;
mod config;
pub mod get;
pub mod identity;
pub mod local;
mod meetings;
mod offline;
mod output;
mod own;
mod port;
pub mod process;
pub mod progress;
pub mod protocol;
mod rate;
mod slots;
mod turns;
pub mod why;

pub use config::{ClientConfig, TcpPort};
