//! The edge's HTTP interface as its clients and its server share it: field names, JSON bodies, what is signed.

use crate::policy::PolicyText;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use swarmedge_core::accounting::possession::Challenge;
use swarmedge_core::ids::Signature;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::records::SealedGrant;

/// Field of a content or manifest request: the sealed grant, base64url.
pub const GRANT: &str = "swarmedge-grant";
/// Field of a grant request: the client key's signature over [`signed_message`], base64url.
pub const SIGNATURE: &str = "swarmedge-signature";
/// Field of a renewal: K_d's signature over the same message, base64url.
pub const RENEWAL_SIGNATURE: &str = "swarmedge-renewal-signature";
/// Path of grant requests.
pub const GRANTS_PATH: &str = "/v1/grants";
/// Path on which a client tells that a download is complete.
pub const COMPLETED_PATH: &str = "/v1/completed";
/// Path on which it proves that it holds what it was asked for.
pub const PROOFS_PATH: &str = "/v1/proofs";
/// Path of the list of what was withdrawn.
pub const WITHDRAWN_PATH: &str = "/v1/withdrawn";
/// Bytes of a grant request.
pub const GRANT_REQUEST_MAX: usize = 16 * 1024;

/// Answer to `GET /v1/bootstrap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// The edge's name.
    pub name: String,
    /// Its clock, Unix milliseconds.
    pub now_ms: u64,
    /// Its region.
    pub region: String,
    /// The lowest client version that may work with this deployment.
    pub client_version_min: String,
    /// CNs, nearest first.
    pub cns: Vec<CnAddr>,
    /// Edges as `https://host:port`, the one that answers first.
    pub edges: Vec<String>,
    /// STUN servers, `host:port`.
    pub stun: Vec<String>,
}

/// Answer to `GET /v1/withdrawn`: what was unpublished of late, and may be shared no more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// Version ids, hexadecimal.
    pub versions: Vec<String>,
}

/// Body of `POST /v1/completed`; the request carries the download's grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompletedRequest {
    /// The version, hexadecimal.
    pub version: String,
}

/// Answer to `POST /v1/completed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedReply {
    /// What is to be proven, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<ChallengeText>,
}

/// A possession challenge: the proof is a SHA-256 over `swarmedge/1 possession`, a zero byte, the nonce, and the bytes
/// of the parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeText {
    /// 16 bytes, hexadecimal.
    pub nonce: String,
    /// Parts of the version, of 64 KiB each but the last, by number from 0.
    pub parts: Vec<u64>,
}

impl From<&Challenge> for ChallengeText {
    fn from(c: &Challenge) -> Self {
        Self { nonce: HEXLOWER.encode(&c.nonce), parts: c.parts.clone() }
    }
}

impl ChallengeText {
    /// The challenge, if it is one.
    #[must_use]
    pub fn read(self) -> Option<Challenge> {
        let nonce = HEXLOWER.decode(self.nonce.as_bytes()).ok()?.try_into().ok()?;
        Some(Challenge { nonce, parts: self.parts })
    }
}

/// Body of `POST /v1/proofs`; the request carries the download's grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofRequest {
    /// The version, hexadecimal.
    pub version: String,
    /// The proof, hexadecimal.
    pub proof: String,
}

/// A provider's token on its way. Its debug form is empty, so that it gets into no log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl Token {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Body of `POST /v1/grants`. Identifiers are hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// The object's provider.
    pub provider: u32,
    /// The object's path.
    pub path: String,
    /// The version that must not have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who asks.
    pub guid: String,
    /// The client's public key, whose signature the request bears.
    pub key: String,
    /// K_d, the public key of the new download.
    pub download_key: String,
    /// The client's idea of the edge's clock, Unix milliseconds.
    pub time_ms: u64,
    /// 16 bytes that are never used again.
    pub nonce: String,
    /// The provider's token; a renewal needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The sealed grant that is to be renewed, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew: Option<String>,
    /// An edge answered 409: a download without peers is to take the renewed one's place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edge_only: bool,
}

/// Answer to `POST /v1/grants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantReply {
    /// The download's id.
    pub download: String,
    /// K_d.
    pub download_key: String,
    /// The version.
    pub version: String,
    /// Its bytes.
    pub size: u64,
    /// What the provider allows.
    pub policy: PolicyText,
    /// Seeds the order of pieces.
    pub order_seed: u64,
    /// Renew before, Unix milliseconds.
    pub expires_ms: u64,
    /// The sealed grant, base64url.
    pub grant: String,
    /// Where the manifest is.
    pub manifest: String,
}

/// What a client signs: which edge (the request's `Host`), which path, when, a nonce, and the body.
#[must_use]
pub fn signed_message(authority: &str, path: &str, time_ms: u64, nonce: &[u8; 16], body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in [authority, path] {
        u32::try_from(text.len()).unwrap_or(u32::MAX).encode(&mut out);
        out.extend_from_slice(text.as_bytes());
    }
    time_ms.encode(&mut out);
    nonce.encode(&mut out);
    out.extend_from_slice(&sha2::Sha256::digest(body));
    out
}

/// A sealed grant as a field's value.
#[must_use]
pub fn grant_text(grant: &SealedGrant) -> String {
    BASE64URL_NOPAD.encode(&grant.to_bytes())
}

/// Reads [`grant_text`].
#[must_use]
pub fn parse_grant(text: &str) -> Option<SealedGrant> {
    SealedGrant::from_bytes(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}

/// A signature as a field's value.
#[must_use]
pub fn signature_text(signature: &Signature) -> String {
    BASE64URL_NOPAD.encode(&signature.0)
}

/// Reads [`signature_text`].
#[must_use]
pub fn parse_signature(text: &str) -> Option<Signature> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok().map(Signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::wire::Blob;

    #[test]
    fn grants_and_signatures_read_back_and_nothing_else_does() {
        let grant = SealedGrant { epoch: 3, nonce: [7; 24], sealed: Blob::new(vec![1, 2, 3]).expect("short") };
        assert_eq!(parse_grant(&grant_text(&grant)), Some(grant.clone()));
        assert_eq!(parse_grant(&format!("{}AAAA", grant_text(&grant))), None);
        assert_eq!(parse_grant("!"), None);
        let signature = Signature([9; 64]);
        assert_eq!(parse_signature(&signature_text(&signature)), Some(signature));
        assert_eq!(parse_signature("AAAA"), None);
    }

    #[test]
    fn the_signed_message_tells_every_part_apart() {
        let base = signed_message("a:1", "/p", 5, &[0; 16], b"x");
        for other in [
            signed_message("a:2", "/p", 5, &[0; 16], b"x"),
            signed_message("a:1/", "p", 5, &[0; 16], b"x"),
            signed_message("a:1", "/p", 6, &[0; 16], b"x"),
            signed_message("a:1", "/p", 5, &[1; 16], b"x"),
            signed_message("a:1", "/p", 5, &[0; 16], b"y"),
        ] {
            assert_ne!(base, other);
        }
    }
}

/// A CN as the bootstrap names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnAddr {
    /// The name in its certificate.
    pub name: String,
    /// `host:port`.
    pub addr: String,
}
