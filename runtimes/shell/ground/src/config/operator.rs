//! The operator's section of `server.toml`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::PathBuf;
use swarmedge_core::ids::PublicKey;

/// The `[operator]` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorConfig {
    /// The root key, 64 hexadecimal digits: what it certifies is a server of this deployment.
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    pub root: PublicKey,
    /// The operator's CA, PEM: whose TLS certificates servers accept from one another.
    pub ca: PathBuf,
}

fn write_key<S: Serializer>(key: &PublicKey, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(key)
}

fn read_key<'de, D: Deserializer<'de>>(d: D) -> Result<PublicKey, D::Error> {
    let text = String::deserialize(d)?;
    text.parse().map_err(|_| serde::de::Error::custom("root: a key has 64 hexadecimal digits"))
}
