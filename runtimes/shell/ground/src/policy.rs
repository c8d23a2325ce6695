//! Text form of a provider's policy: in the file given to `publish`, the catalogue, and answers to grant requests.

use crate::terminal::units::Rate;
use serde::{Deserialize, Serialize};
use swarmedge_core::content::Policy;

/// Text form of [`Policy`]; absent keys have the policy's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyText {
    /// Whether clients may download the object from peers.
    pub peer_download: bool,
    /// Whether clients that hold the object may upload it.
    pub peer_upload: bool,
    /// Most times one client may upload the whole object; 0: no cap.
    pub uploads_max: u32,
    /// Most bytes a second one client may upload of the object; 0: no cap.
    pub upload_rate_max: Rate,
    /// Download rate that the provider wants at least, bytes a second; 0: as fast as the edge alone.
    pub rate_min: Rate,
    /// Most bytes a second the edge sends to one download; 0: no cap.
    pub edge_rate_max: Rate,
    /// End of delivery, Unix milliseconds; 0: never expires.
    pub expires_ms: u64,
}

impl Default for PolicyText {
    fn default() -> Self {
        Policy::default().into()
    }
}

impl From<Policy> for PolicyText {
    fn from(p: Policy) -> Self {
        Self {
            peer_download: p.peer_download,
            peer_upload: p.peer_upload,
            uploads_max: p.uploads_max,
            upload_rate_max: Rate(p.upload_rate_max),
            rate_min: Rate(p.rate_min),
            edge_rate_max: Rate(p.edge_rate_max),
            expires_ms: p.expires_ms,
        }
    }
}

impl From<PolicyText> for Policy {
    fn from(p: PolicyText) -> Self {
        Self {
            peer_download: p.peer_download,
            peer_upload: p.peer_upload,
            uploads_max: p.uploads_max,
            upload_rate_max: p.upload_rate_max.0,
            rate_min: p.rate_min.0,
            edge_rate_max: p.edge_rate_max.0,
            expires_ms: p.expires_ms,
        }
    }
}

impl PolicyText {
    /// Returns the keys that differ from the default, as in a policy file: `peer_upload = false, rate_min = 1000000`.
    #[must_use]
    pub fn changed(&self) -> String {
        let (own, default) = (serde_json::json!(self), serde_json::json!(Self::default()));
        let changed = own.as_object().into_iter().flatten().filter(|(key, value)| default.get(key) != Some(value));
        changed.map(|(key, value)| format!("{key} = {value}")).collect::<Vec<_>>().join(", ")
    }
}
