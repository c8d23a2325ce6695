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

/// Keys that a policy file sets, for an object or for all objects of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyKeys {
    /// [`PolicyText::peer_download`], if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_download: Option<bool>,
    /// [`PolicyText::peer_upload`], if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_upload: Option<bool>,
    /// [`PolicyText::uploads_max`], if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploads_max: Option<u32>,
    /// [`PolicyText::upload_rate_max`], if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_rate_max: Option<Rate>,
    /// [`PolicyText::rate_min`], if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_min: Option<Rate>,
    /// [`PolicyText::edge_rate_max`], if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge_rate_max: Option<Rate>,
    /// [`PolicyText::expires_ms`], if set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<u64>,
}

impl PolicyKeys {
    /// Returns the policy with these keys; a key that is not set has its value in `base`.
    #[must_use]
    pub fn over(self, base: Policy) -> Policy {
        let base = PolicyText::from(base);
        PolicyText {
            peer_download: self.peer_download.unwrap_or(base.peer_download),
            peer_upload: self.peer_upload.unwrap_or(base.peer_upload),
            uploads_max: self.uploads_max.unwrap_or(base.uploads_max),
            upload_rate_max: self.upload_rate_max.unwrap_or(base.upload_rate_max),
            rate_min: self.rate_min.unwrap_or(base.rate_min),
            edge_rate_max: self.edge_rate_max.unwrap_or(base.edge_rate_max),
            expires_ms: self.expires_ms.unwrap_or(base.expires_ms),
        }
        .into()
    }
}

impl From<Policy> for PolicyKeys {
    /// Sets every key.
    fn from(policy: Policy) -> Self {
        let p = PolicyText::from(policy);
        Self {
            peer_download: Some(p.peer_download),
            peer_upload: Some(p.peer_upload),
            uploads_max: Some(p.uploads_max),
            upload_rate_max: Some(p.upload_rate_max),
            rate_min: Some(p.rate_min),
            edge_rate_max: Some(p.edge_rate_max),
            expires_ms: Some(p.expires_ms),
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
