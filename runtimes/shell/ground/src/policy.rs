//! A provider's policy as text: in policy files, in the catalogue, and in the answer to a grant request.

use serde::{Deserialize, Serialize};
use swarmedge_core::content::Policy;

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
