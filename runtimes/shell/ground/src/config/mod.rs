//! Configuration files, checked when read: errors name an unknown key or a bad value with its line. [`ServerConfig`] is
//! `server.toml`, [`Bundle`] the install bundle of clients, [`File`] the common TOML reader.

pub mod bundle;
pub mod file;
pub mod operator;

pub use bundle::Bundle;
pub use file::File;
pub use operator::OperatorConfig;
