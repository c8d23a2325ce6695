//! Grants: which client gets a grant, how a client renews it, and which grants entitle a client to query for peers.

use super::edge_auth::{self, TokenError, Withheld};
use super::{CertError, Trust};
use crate::codec::{Text, Wire};
use crate::content::{Access, Policy};
use crate::ids::{DownloadId, Guid, ProviderId, PublicKey, ReqId, VersionId};
use crate::limits;
use crate::machine::Rng;
use crate::wire::records::{Grant, ServerRole, SignedGrant, SigningContext};
use core::net::IpAddr;
use core::time::Duration;

/// A request for a grant. Its object was looked up and its signature by `key` verified before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantAsked {
    /// The request's number, echoed in the answer.
    pub req: ReqId,
    /// GUID of the client that asks.
    pub guid: Guid,
    /// The client's public key, which signed the request.
    pub key: PublicKey,
    /// Public key that the client made for the new download; a renewal keeps the old grant's key instead.
    pub download_key: PublicKey,
    /// The object as the catalogue has it now.
    pub object: ObjectFacts,
    /// Result of checking the provider's token; `None` if the request showed no token.
    pub token: Option<Result<(), TokenError>>,
    /// The version that the client has begun to download; `None` if any version will do.
    pub version: Option<VersionId>,
    /// The grant to be renewed; `None` if the client asks for a first grant.
    pub renew: Option<Renewal>,
    /// IP address from which the request came.
    pub from: IpAddr,
    /// Time of the request, covered by its signature, Unix milliseconds.
    pub time_ms: u64,
    /// Random value of this request alone, covered by its signature.
    pub nonce: Nonce,
}

/// An object's entry in the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectFacts {
    /// The provider that pays for its delivery.
    pub provider: ProviderId,
    /// The object's path, without the provider's id.
    pub path: Text<{ limits::PATH_LEN_MAX }>,
    /// The object's present version.
    pub version: VersionId,
    /// Size of the version in bytes.
    pub size: u64,
    /// Access rule of the object: public, or only with a provider's token.
    pub access: Access,
    /// The provider's rules for peers, uploads and expiry.
    pub policy: Policy,
}

/// A grant that a client asks to renew.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Renewal {
    /// The grant from inside the seal; `None` if this edge could not open the seal.
    pub grant: Option<SignedGrant>,
    /// Whether the request is also validly signed by the grant's `download_key`.
    pub proven: bool,
    /// Whether the client asks for a new download without peers, because an edge cannot count this one's bytes and
    /// refused it.
    pub edge_only: bool,
}

/// Random value that makes a signed request different from all others.
pub type Nonce = [u8; 16];

/// Reason for refusing a grant, with the HTTP status of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denial {
    /// The `guid` does not belong to the key that signed (403).
    WrongKey,
    /// The object needs a valid provider's token (401, 403).
    Withheld(Withheld),
    /// The object has expired (410).
    Gone,
    /// The object has another version now (412).
    Changed,
    /// The old grant is forged, too old or another client's, so the client must ask for a new one (401).
    GrantExpired,
    /// The request's time is too far from this edge's clock (400).
    Clock,
    /// The edge has seen the request before (400).
    Replayed,
    /// Too many requests by this client, from its network or for this download (429).
    TooMany {
        /// Wait before the next request, in milliseconds.
        retry_after_ms: u32,
    },
    /// The edge cannot decide now (503).
    Unavailable,
}

/// Largest tolerated difference between two servers' clocks, in milliseconds.
pub const SKEW_MS: u64 = 30_000;

/// Time from a download's first grant to its last renewal, in milliseconds. With the last grant's validity added it
/// stays below two days, so edges send nothing under the download's id once the day of its first grant may be closed.
/// A client that has not finished by then begins a new download.
pub const RENEWED_FOR_MS: u64 = 47 * 3600 * 1000;

/// Lifetimes of grants, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Time from a grant's issue to its expiry.
    pub valid_ms: u64,
    /// Time from a grant's expiry to the last moment of its renewal.
    pub renew_ms: u64,
    /// Time from a download's first grant to its last renewal.
    pub whole_ms: u64,
}

/// Reason for not accepting a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrantError {
    /// The edge's certificate or its signature is not valid.
    Chain(CertError),
    /// The grant is not valid yet, or has expired.
    Time,
}

/// Checks a grant's signature and its edge's certificate, but not the grant's own time.
pub fn check_chain(trust: &Trust, signed: &SignedGrant, now_ms: u64) -> Result<(), GrantError> {
    let message = signed.grant.to_bytes();
    trust
        .check_signed(&signed.cert, ServerRole::Edge, now_ms, (SigningContext::Grant, &message, &signed.signature))
        .map_err(GrantError::Chain)
}

/// Checks that a grant is genuine and valid at `now_ms`, Unix milliseconds.
pub fn check(trust: &Trust, signed: &SignedGrant, now_ms: u64) -> Result<(), GrantError> {
    let g = &signed.grant;
    if now_ms.saturating_add(SKEW_MS) < g.issued_ms || now_ms >= g.expires_ms {
        return Err(GrantError::Time);
    }
    check_chain(trust, signed, now_ms)
}

/// Reason for refusing a query that shows a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShownError {
    /// The grant is not genuine, or not valid now.
    Invalid(GrantError),
    /// The grant belongs to another client.
    NotYours,
    /// The grant gives no right to peers.
    NoPeers,
}

/// Checks that the client `guid` may query a CN for peers with this grant at `now_ms`, Unix milliseconds.
pub fn check_shown(trust: &Trust, signed: &SignedGrant, guid: Guid, now_ms: u64) -> Result<(), ShownError> {
    check(trust, signed, now_ms).map_err(ShownError::Invalid)?;
    if signed.grant.guid != guid {
        return Err(ShownError::NotYours);
    }
    // uploaders only know the policy of their own grant, so where uploads are forbidden now, no peer is introduced
    let policy = &signed.grant.policy;
    let allowed = policy.peer_download && policy.peer_upload && signed.grant.max_peer_bytes > 0;
    if allowed { Ok(()) } else { Err(ShownError::NoPeers) }
}

/// Returns the delay before a client renews a grant that expires in `left`: it renews the grant `before` its expiry,
/// but not before half of `left` and one second have passed, so that it does not send many requests.
#[must_use]
pub fn renew_after(left: Duration, before: Duration) -> Duration {
    left.saturating_sub(before).max(left / 2).max(Duration::from_secs(1))
}

/// Result of a request for a grant that was permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The new or renewed grant, not signed yet.
    pub grant: Grant,
    /// Whether the grant is the download's first one, so that a record of it goes to the ledger.
    pub first: bool,
}

/// Decides a request for a grant. A first grant sets download id, client, download key, version and the maximum of
/// bytes from peers; it needs the provider's token if the object is not public. A renewal needs no token and keeps
/// all of these, but takes the present policy and may lower the maximum. A renewal without peers, which the client
/// asks for or the policy demands, gets a new download id, so that a download without peers never had any.
pub fn decide(
    trust: &Trust,
    lifetimes: Lifetimes,
    now_ms: u64,
    rng: &mut dyn Rng,
    asked: &GrantAsked,
) -> Result<Decision, Denial> {
    let object = &asked.object;
    if Guid::of(&asked.key) != asked.guid {
        return Err(Denial::WrongKey);
    }
    if object.policy.expires_ms != 0 && now_ms >= object.policy.expires_ms {
        return Err(Denial::Gone);
    }
    if asked.version.is_some_and(|v| v != object.version) {
        return Err(Denial::Changed);
    }
    let expires_ms = expiry(&object.policy, now_ms.saturating_add(lifetimes.valid_ms));
    match &asked.renew {
        None => edge_auth::admit(object.access, asked.token)
            .map_err(Denial::Withheld)
            .map(|()| Decision { grant: first_grant(object, asked, now_ms, expires_ms, rng), first: true }),
        Some(renewal) => {
            let old = renewal.grant.as_ref().filter(|_| renewal.proven).ok_or(Denial::GrantExpired)?;
            check_chain(trust, old, now_ms).map_err(|_| Denial::GrantExpired)?;
            let old = &old.grant;
            let late = now_ms > old.expires_ms.saturating_add(lifetimes.renew_ms)
                || now_ms > old.began_ms.saturating_add(lifetimes.whole_ms);
            if old.guid != asked.guid || late {
                return Err(Denial::GrantExpired);
            }
            if old.version != object.version {
                return Err(Denial::Changed);
            }
            let max_peer_bytes = old.max_peer_bytes.min(ceiling(object));
            let policy = object.policy.clone();
            let grant = Grant { policy, max_peer_bytes, issued_ms: now_ms, expires_ms, ..old.clone() };
            let edge_only = grant.is_edge_only() || renewal.edge_only;
            let grant = match edge_only {
                // bytes of peers may be billed under the old download, so the new one needs another id
                true if !old.is_edge_only() => Grant { download: DownloadId(rng.nonce()), ..grant.edge_only() },
                true => grant.edge_only(),
                false => grant,
            };
            Ok(Decision { grant, first: false })
        }
    }
}

fn first_grant(o: &ObjectFacts, asked: &GrantAsked, issued_ms: u64, expires_ms: u64, rng: &mut dyn Rng) -> Grant {
    let mut seed = [0; 8];
    seed.copy_from_slice(&rng.nonce()[..8]);
    Grant {
        download: DownloadId(rng.nonce()),
        guid: asked.guid,
        download_key: asked.download_key,
        version: o.version,
        size: o.size,
        provider: o.provider,
        path: o.path.clone(),
        policy: o.policy.clone(),
        max_peer_bytes: ceiling(o),
        order_seed: u64::from_be_bytes(seed),
        began_ms: issued_ms,
        issued_ms,
        expires_ms,
        challenged: false,
    }
}

const fn ceiling(o: &ObjectFacts) -> u64 {
    if o.policy.peer_download { o.size } else { 0 }
}

fn expiry(policy: &Policy, wanted_ms: u64) -> u64 {
    if policy.expires_ms == 0 { wanted_ms } else { wanted_ms.min(policy.expires_ms) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::certs::tests::{cert, fake_sign, trust};
    use super::super::edge_auth::{TokenError, Withheld};
    use super::*;
    use crate::content::Access;
    use crate::ids::{ProviderId, PublicKey, ReqId, VersionId};
    use crate::wire::Text;
    use core::net::Ipv4Addr;

    const LIVES: Lifetimes = Lifetimes { valid_ms: 900_000, renew_ms: 600_000, whole_ms: 3_000_000 };
    const NOW: u64 = 2_000_000;

    struct Counter(u8);
    impl Rng for Counter {
        fn below(&mut self, _: u32) -> u32 {
            0
        }
        fn nonce(&mut self) -> [u8; 16] {
            self.0 += 1;
            [self.0; 16]
        }
    }

    fn asked() -> GrantAsked {
        let key = PublicKey::numbered(1);
        GrantAsked {
            req: ReqId(1),
            guid: Guid::of(&key),
            key,
            download_key: PublicKey::numbered(2),
            object: ObjectFacts {
                provider: ProviderId(5),
                path: Text::new("a").expect("short"),
                version: VersionId::numbered(3),
                size: 100,
                access: Access::Public,
                policy: Policy::default(),
            },
            token: None,
            version: None,
            renew: None,
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            time_ms: NOW,
            nonce: [0; 16],
        }
    }

    fn run(asked: &GrantAsked, now_ms: u64) -> Result<Decision, Denial> {
        decide(&trust(), LIVES, now_ms, &mut Counter(0), asked)
    }

    fn signed(grant: Grant) -> SignedGrant {
        let key = PublicKey::numbered(77);
        let signature = fake_sign(&key, SigningContext::Grant, &grant.to_bytes());
        SignedGrant { grant, signature, cert: cert(ServerRole::Edge, key) }
    }

    fn renewal_of(grant: Grant) -> GrantAsked {
        let renew = Some(Renewal { grant: Some(signed(grant)), proven: true, edge_only: false });
        GrantAsked { download_key: PublicKey::numbered(99), renew, ..asked() }
    }

    #[test]
    fn a_first_grant_names_client_version_and_ceiling() {
        let d = run(&asked(), NOW).expect("granted");
        assert!(d.first);
        assert_eq!(d.grant.guid, asked().guid);
        assert_eq!(d.grant.download_key, PublicKey::numbered(2));
        assert_eq!((d.grant.size, d.grant.max_peer_bytes), (100, 100));
        assert_eq!((d.grant.issued_ms, d.grant.expires_ms), (NOW, NOW + 900_000));
        assert_eq!(check(&trust(), &signed(d.grant), NOW), Ok(()));
    }

    #[test]
    fn a_guid_that_is_not_the_keys_is_refused() {
        assert_eq!(run(&GrantAsked { guid: Guid::numbered(1), ..asked() }, NOW), Err(Denial::WrongKey));
    }

    #[test]
    fn a_private_object_needs_a_token_for_the_first_grant_only() {
        let with =
            |token| GrantAsked { token, object: ObjectFacts { access: Access::Token, ..asked().object }, ..asked() };
        let denied = |token| run(&with(token), NOW).expect_err("withheld");
        assert_eq!(denied(None), Denial::Withheld(Withheld::Missing));
        assert_eq!(denied(Some(Err(TokenError::Expired))), Denial::Withheld(Withheld::Expired));
        for why in [TokenError::Malformed, TokenError::Forged, TokenError::Early, TokenError::Elsewhere] {
            assert_eq!(denied(Some(Err(why))), Denial::Withheld(Withheld::Invalid));
        }
        let old = run(&with(Some(Ok(()))), NOW).expect("granted").grant;
        let renewal = GrantAsked { object: with(None).object, ..renewal_of(old.clone()) };
        assert_eq!(run(&renewal, NOW + 1).expect("renewed").grant.download, old.download);
        // a public object needs no token, whatever was shown
        assert!(run(&GrantAsked { token: Some(Err(TokenError::Forged)), ..asked() }, NOW).is_ok());
    }

    #[test]
    fn an_expired_or_changed_object_is_refused() {
        let mut a = asked();
        a.object.policy.expires_ms = NOW;
        assert_eq!(run(&a, NOW), Err(Denial::Gone));
        let a = GrantAsked { version: Some(VersionId::numbered(4)), ..asked() };
        assert_eq!(run(&a, NOW), Err(Denial::Changed));
    }

    #[test]
    fn no_grant_outlives_its_object() {
        let mut a = asked();
        a.object.policy.expires_ms = NOW + 5;
        assert_eq!(run(&a, NOW).expect("granted").grant.expires_ms, NOW + 5);
    }

    #[test]
    fn a_download_is_renewed_again_and_again_but_not_for_ever() {
        let first = run(&asked(), NOW).expect("granted").grant;
        let mut grant = first.clone();
        let mut at = NOW;
        while let Ok(d) = run(&renewal_of(grant.clone()), at + 700_000) {
            at += 700_000;
            grant = d.grant;
            assert_eq!((grant.download, grant.began_ms, grant.issued_ms), (first.download, NOW, at));
        }
        assert_eq!(at, NOW + 2_800_000, "the last renewal before the download is 3,000 s old");
        assert_eq!(run(&renewal_of(grant), NOW + 3_000_001), Err(Denial::GrantExpired));
    }

    #[test]
    fn without_peer_download_the_ceiling_is_zero() {
        let mut a = asked();
        a.object.policy.peer_download = false;
        assert_eq!(run(&a, NOW).expect("granted").grant.max_peer_bytes, 0);
    }

    #[test]
    fn a_renewal_keeps_what_the_first_grant_fixed_and_never_widens_it() {
        let old = Grant { max_peer_bytes: 40, ..run(&asked(), NOW).expect("granted").grant };
        let d = run(&renewal_of(old.clone()), NOW + 1_000_000).expect("renewed");
        assert!(!d.first);
        assert_eq!(d.grant, Grant { issued_ms: NOW + 1_000_000, expires_ms: NOW + 1_900_000, ..old });
    }

    #[test]
    fn a_renewal_needs_a_recent_grant_of_the_same_client_and_key() {
        let old = run(&asked(), NOW).expect("granted").grant;
        let mut unproven = renewal_of(old.clone());
        unproven.renew.as_mut().expect("a renewal").proven = false;
        assert_eq!(run(&unproven, NOW), Err(Denial::GrantExpired));
        let mut forged = renewal_of(old.clone());
        if let Some(g) = forged.renew.as_mut().and_then(|r| r.grant.as_mut()) {
            g.grant.size += 1;
        }
        assert_eq!(run(&forged, NOW), Err(Denial::GrantExpired));
        assert_eq!(run(&renewal_of(old.clone()), NOW + 1_500_001), Err(Denial::GrantExpired));
        assert_eq!(run(&renewal_of(Grant { guid: Guid::numbered(8), ..old.clone() }), NOW), Err(Denial::GrantExpired));
        assert_eq!(run(&renewal_of(Grant { version: VersionId::numbered(8), ..old }), NOW), Err(Denial::Changed));
    }

    /// Returns copies of the grant, each with another field changed.
    pub(crate) fn each_binding_changed(g: &Grant) -> alloc::vec::Vec<(&'static str, Grant)> {
        let mut policy = g.policy.clone();
        policy.uploads_max += 1;
        alloc::vec![
            ("download", Grant { download: DownloadId::numbered(0x7777), ..g.clone() }),
            ("guid", Grant { guid: Guid::numbered(0x7777), ..g.clone() }),
            ("download_key", Grant { download_key: PublicKey::numbered(0x7777), ..g.clone() }),
            ("version", Grant { version: VersionId::numbered(0x7777), ..g.clone() }),
            ("size", Grant { size: g.size + 1, ..g.clone() }),
            ("provider", Grant { provider: ProviderId(0x7777), ..g.clone() }),
            ("path", Grant { path: Text::new("elsewhere").expect("short"), ..g.clone() }),
            ("policy", Grant { policy, ..g.clone() }),
            ("max_peer_bytes", Grant { max_peer_bytes: g.max_peer_bytes + 1, ..g.clone() }),
            ("order_seed", Grant { order_seed: g.order_seed ^ 1, ..g.clone() }),
            ("began_ms", Grant { began_ms: g.began_ms + 1, ..g.clone() }),
            ("issued_ms", Grant { issued_ms: g.issued_ms - 1, ..g.clone() }),
            ("expires_ms", Grant { expires_ms: g.expires_ms + 1, ..g.clone() }),
            ("challenged", Grant { challenged: !g.challenged, ..g.clone() }),
        ]
    }

    #[test]
    fn no_field_of_a_grant_can_be_changed() {
        let old = run(&asked(), NOW).expect("granted").grant;
        let genuine = signed(old.clone());
        for (binding, grant) in each_binding_changed(&old) {
            let forged = SignedGrant { grant, ..genuine.clone() };
            let chain = Err(GrantError::Chain(CertError::Signature));
            assert_eq!(check(&trust(), &forged, NOW), chain, "{binding}");
            let renew = Some(Renewal { grant: Some(forged), proven: true, edge_only: false });
            assert_eq!(run(&GrantAsked { renew, ..asked() }, NOW), Err(Denial::GrantExpired), "{binding}");
        }
        // the holder of a certificate for another role cannot sign grants
        let key = PublicKey::numbered(78);
        let signature = fake_sign(&key, SigningContext::Grant, &old.to_bytes());
        let of_a_cn = SignedGrant { grant: old, signature, cert: cert(ServerRole::Cn, key) };
        assert!(matches!(check(&trust(), &of_a_cn, NOW), Err(GrantError::Chain(_))));
    }

    #[test]
    fn a_grant_is_good_only_between_issue_and_expiry() {
        let g = signed(run(&asked(), NOW).expect("granted").grant);
        assert_eq!(check(&trust(), &g, NOW - SKEW_MS), Ok(()));
        assert_eq!(check(&trust(), &g, NOW - SKEW_MS - 1), Err(GrantError::Time));
        assert_eq!(check(&trust(), &g, NOW + 899_999), Ok(()));
        assert_eq!(check(&trust(), &g, NOW + 900_000), Err(GrantError::Time));
    }
}
