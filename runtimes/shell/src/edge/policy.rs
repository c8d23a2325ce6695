//! A provider's policy as text: the file given to `publish`, the catalogue, and the answer to a grant request.

use super::Error;
use serde::{Deserialize, Serialize};
use std::path::Path;
use swarmedge_core::content::{Access, Policy};

/// [`Policy`] with its default for every key that is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyText {
    /// Clients may download from peers.
    pub peer_download: bool,
    /// Clients that hold it may upload it.
    pub peer_upload: bool,
    /// How often one client may upload the whole object; 0: no cap.
    pub uploads_max: u32,
    /// The most bytes a second one client may upload of it; 0: no cap.
    pub upload_rate_max: u64,
    /// The least rate the provider wants, bytes a second; 0: as fast as the edge alone.
    pub rate_min: u64,
    /// The edge sends no faster than this to one download, bytes a second; 0: no cap.
    pub edge_rate_max: u64,
    /// Not delivered after, Unix milliseconds; 0: never expires.
    pub expires_ms: u64,
}

/// [`Access`] as text: in the catalogue, in answers, on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AccessText {
    /// Whoever knows the URL.
    #[default]
    Public,
    /// Whoever has a token that the provider signed.
    Token,
}

impl From<Access> for AccessText {
    fn from(access: Access) -> Self {
        match access {
            Access::Public => Self::Public,
            Access::Token => Self::Token,
        }
    }
}

impl From<AccessText> for Access {
    fn from(access: AccessText) -> Self {
        match access {
            AccessText::Public => Self::Public,
            AccessText::Token => Self::Token,
        }
    }
}

impl Default for PolicyText {
    fn default() -> Self {
        Policy::default().into()
    }
}

impl From<Policy> for PolicyText {
    fn from(p: Policy) -> Self {
        let Policy { peer_download, peer_upload, uploads_max, upload_rate_max, rate_min, edge_rate_max, expires_ms } =
            p;
        Self { peer_download, peer_upload, uploads_max, upload_rate_max, rate_min, edge_rate_max, expires_ms }
    }
}

impl From<PolicyText> for Policy {
    fn from(p: PolicyText) -> Self {
        let PolicyText {
            peer_download,
            peer_upload,
            uploads_max,
            upload_rate_max,
            rate_min,
            edge_rate_max,
            expires_ms,
        } = p;
        Self { peer_download, peer_upload, uploads_max, upload_rate_max, rate_min, edge_rate_max, expires_ms }
    }
}

impl PolicyText {
    /// The keys that are not as by default, as a policy file has them: `peer_upload = false, rate_min = 1000000`.
    #[must_use]
    pub fn changed(&self) -> String {
        let (own, default) = (serde_json::json!(self), serde_json::json!(Self::default()));
        let changed = own.as_object().into_iter().flatten().filter(|(key, value)| default.get(key) != Some(value));
        changed.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
    }
}

/// Reads a policy file (TOML).
pub fn load(path: &Path) -> Result<Policy, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::at(path))?;
    let policy: PolicyText =
        toml::from_str(&text).map_err(|e| Error::Policy(path.to_owned(), e.message().to_owned()))?;
    Ok(policy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_file_changes_what_it_names_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("policy.toml");
        std::fs::write(&file, "peer_upload = false\nrate_min = 1000000\n").expect("written");
        let expected = Policy { peer_upload: false, rate_min: 1_000_000, ..Policy::default() };
        assert_eq!(load(&file).expect("valid"), expected);
        assert_eq!(PolicyText::from(expected).changed(), "peer_upload = false, rate_min = 1000000");
        assert_eq!(PolicyText::default().changed(), "");
        std::fs::write(&file, "peer_uploads = false\n").expect("written");
        assert!(load(&file).expect_err("a wrong key").to_string().contains("peer_uploads"));
    }
}
