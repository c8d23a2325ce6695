//! The edge's HTTP interface, shared by server and clients: header fields, JSON bodies, and the message that is signed.

use crate::policy::PolicyText;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use swarmedge_core::accounting::possession::Challenge;
use swarmedge_core::ids::Signature;
use swarmedge_core::limits::NOTICE_LEN_MAX;
use swarmedge_core::wire::Wire as _;
use swarmedge_core::wire::notice::SignedNotice;
use swarmedge_core::wire::records::{SealedGrant, SignedHolderTicket};

/// Problem name for damaged stored content, which stays unavailable until the operator publishes it again.
pub const CONTENT_DAMAGED: &str = "content-damaged";

/// Problem name for a full disk of the server.
pub const DISK_FULL: &str = "disk-full";

/// Header field of a content or manifest request with the sealed grant, base64url.
pub const GRANT: &str = "swarmedge-grant";
/// Header field of a grant request: the client key's signature over [`signed_message`], base64url.
pub const SIGNATURE: &str = "swarmedge-signature";
/// Header field of a renewal: the signature of K_d (the download's key) over [`signed_message`], base64url.
pub const RENEWAL_SIGNATURE: &str = "swarmedge-renewal-signature";
/// Path of grant requests.
pub const GRANTS_PATH: &str = "/v1/grants";
/// Path on which a client reports a completed download.
pub const COMPLETED_PATH: &str = "/v1/completed";
/// Path on which a client answers a possession challenge.
pub const PROOFS_PATH: &str = "/v1/proofs";
/// Path of the signed notices.
pub const NOTICES_PATH: &str = "/v1/notices";
/// Maximum number of notices in one answer; only notices with equal serial numbers may exceed it.
pub const NOTICES_PER_ANSWER: usize = 1_000;
/// Maximum length of an answer with notices, bytes.
pub const NOTICES_LEN_MAX: usize = 2 * NOTICES_PER_ANSWER * (NOTICE_LEN_MAX + 1024);
/// Maximum length of a grant request's body, bytes.
pub const GRANT_REQUEST_MAX: usize = 16 * 1024;

/// Answer to `GET /v1/bootstrap`: the servers of this deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Name of the edge, as configured.
    pub name: String,
    /// The edge's clock, Unix milliseconds.
    pub now_ms: u64,
    /// The edge's region, as configured.
    pub region: String,
    /// Lowest client version that the CNs accept, to be shown to the user; edges serve every version.
    pub client_version_min: String,
    /// CNs of the deployment, nearest first.
    pub cns: Vec<CnAddr>,
    /// Edges as `https://host:port`; the answering edge comes first.
    pub edges: Vec<String>,
    /// STUN servers of the deployment, `host:port`.
    pub stun: Vec<String>,
}

/// Answer to `GET /v1/notices?after=SERIAL`: signed notices about versions whose policy was changed, or that were
/// unpublished.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notices {
    /// Signed notices with a higher serial number than asked for, in the order of these numbers, base64url.
    pub notices: Vec<String>,
    /// Serial number to send as `after` in the next request.
    pub last: u64,
    /// Whether the edge has more notices.
    #[serde(default)]
    pub more: bool,
    /// The edge's clock, Unix milliseconds.
    pub now_ms: u64,
}

/// Body of `POST /v1/completed`; the request carries the download's grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompletedRequest {
    /// Id of the version, hexadecimal.
    pub version: String,
    /// Whether the client's copy is blamed by peers, so that it wants to be challenged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recheck: bool,
}

/// Answer to `POST /v1/completed`, perhaps with a challenge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedReply {
    /// The possession challenge to answer; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<ChallengeText>,
}

/// A possession challenge: the proof is a SHA-256 over `swarmedge/1 possession`, a zero byte, the nonce, and the bytes
/// of the parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeText {
    /// Nonce of the challenge: 16 bytes, hexadecimal.
    pub nonce: String,
    /// Numbers of the 64 KiB parts of the version to hash, from 0; the last part may be shorter.
    pub parts: Vec<u64>,
}

impl From<&Challenge> for ChallengeText {
    fn from(c: &Challenge) -> Self {
        Self { nonce: HEXLOWER.encode(&c.nonce), parts: c.parts.clone() }
    }
}

impl ChallengeText {
    /// Parses the challenge; `None` if the nonce is malformed.
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
    /// Id of the version, hexadecimal.
    pub version: String,
    /// The SHA-256 proof, hexadecimal.
    pub proof: String,
}

/// A provider's token in a request. The debug form hides the text, so that no log shows a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub String);

impl Token {
    /// Returns the token's text.
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
    /// Provider of the object.
    pub provider: u32,
    /// Path of the object.
    pub path: String,
    /// The version wanted; the request fails if the object has another one now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// GUID of the client that asks.
    pub guid: String,
    /// The client's public key, which signed the request.
    pub key: String,
    /// K_d: public key of the new download.
    pub download_key: String,
    /// The edge's time as the client estimates it, Unix milliseconds.
    pub time_ms: u64,
    /// Random nonce of 16 bytes, used once.
    pub nonce: String,
    /// The provider's token, where the object needs one; a renewal needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The sealed grant to renew, base64url; absent in a first request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew: Option<String>,
    /// Asks to exchange the renewed grant for a download without peers, after an edge that cannot count answered 409.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub edge_only: bool,
    /// Version of the client program; empty for other programs than Swarmedge's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub client_version: String,
}

/// Answer to `POST /v1/grants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantReply {
    /// Id of the download.
    pub download: String,
    /// K_d: public key of the download.
    pub download_key: String,
    /// The granted version, hexadecimal.
    pub version: String,
    /// Size of the version, bytes.
    pub size: u64,
    /// The provider's policy for the object.
    pub policy: PolicyText,
    /// Newest signed notice about the version, base64url; absent if its policy was never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Holder's ticket, base64url: the client shows it to CNs when it shares its copy of the version, also after the
    /// grant has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// Seed of the order in which the client fetches pieces.
    pub order_seed: u64,
    /// End of the grant, Unix milliseconds; renew before.
    pub expires_ms: u64,
    /// The sealed grant, base64url.
    pub grant: String,
    /// Path of the version's manifest on this edge.
    pub manifest: String,
}

/// Returns the bytes a client signs: the edge's authority (the `Host` field), the path, the time, the nonce, and the
/// body's SHA-256.
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

/// Encodes a sealed grant as a header field value, base64url.
#[must_use]
pub fn grant_text(grant: &SealedGrant) -> String {
    BASE64URL_NOPAD.encode(&grant.to_bytes())
}

/// Parses the value that [`grant_text`] makes.
#[must_use]
pub fn parse_grant(text: &str) -> Option<SealedGrant> {
    SealedGrant::from_bytes(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}

/// Encodes a signed notice, base64url.
#[must_use]
pub fn notice_text(notice: &SignedNotice) -> String {
    BASE64URL_NOPAD.encode(&notice.to_bytes())
}

/// Parses the text that [`notice_text`] makes.
#[must_use]
pub fn parse_notice(text: &str) -> Option<SignedNotice> {
    SignedNotice::from_bytes(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}

/// Encodes a holder's ticket, base64url.
#[must_use]
pub fn ticket_text(ticket: &SignedHolderTicket) -> String {
    BASE64URL_NOPAD.encode(&ticket.to_bytes())
}

/// Parses the text that [`ticket_text`] makes.
#[must_use]
pub fn parse_ticket(text: &str) -> Option<SignedHolderTicket> {
    SignedHolderTicket::from_bytes(&BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()
}

/// Encodes a signature as a header field value, base64url.
#[must_use]
pub fn signature_text(signature: &Signature) -> String {
    BASE64URL_NOPAD.encode(&signature.0)
}

/// Parses the value that [`signature_text`] makes.
#[must_use]
pub fn parse_signature(text: &str) -> Option<Signature> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok().map(Signature)
}

/// A CN in the bootstrap answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CnAddr {
    /// The name in the CN's certificate.
    pub name: String,
    /// The CN's address, `host:port`.
    pub addr: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarmedge_core::wire::Blob;

    #[test]
    fn grants_and_signatures_round_trip_and_garbage_is_refused() {
        let grant = SealedGrant { epoch: 3, nonce: [7; 24], sealed: Blob::new(vec![1, 2, 3]).expect("short") };
        assert_eq!(parse_grant(&grant_text(&grant)), Some(grant.clone()));
        assert_eq!(parse_grant(&format!("{}AAAA", grant_text(&grant))), None);
        assert_eq!(parse_grant("!"), None);
        let signature = Signature([9; 64]);
        assert_eq!(parse_signature(&signature_text(&signature)), Some(signature));
        assert_eq!(parse_signature("AAAA"), None);
    }

    #[test]
    fn every_part_changes_the_signed_message() {
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
