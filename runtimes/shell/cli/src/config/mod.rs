//! The server's configuration file: the sections of all roles together.

pub mod server;

pub use server::ServerConfig;
pub use swarmedge_ground::config::{Bundle, File};
