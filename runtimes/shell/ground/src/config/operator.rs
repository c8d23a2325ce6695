//! The `[operator]` section of `server.toml`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;
use swarmedge_core::ids::PublicKey;

/// The `[operator]` section, shared by all roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorConfig {
    /// The root public key, 64 hexadecimal digits; it certifies the servers of this deployment.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub root: PublicKey,
    /// PEM file with the operator's CA, which issued the TLS certificates that servers accept from one another.
    pub ca: PathBuf,
}

fn write_key<S: Serializer>(key: &PublicKey, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(key)
}

fn read_key<'de, D: Deserializer<'de>>(d: D) -> Result<PublicKey, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(|_| serde::de::Error::custom("a key has 64 hexadecimal digits"))
}
