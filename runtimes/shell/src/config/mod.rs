//! Configuration files, checked when they are read: an unknown key or a bad value is named with its line.

pub mod bundle;
pub mod file;
pub mod server;

pub use bundle::Bundle;
pub use file::File;
pub use server::ServerConfig;
