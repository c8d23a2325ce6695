//! Access to objects that are not public: a request needs a grant for the version, or the provider's token.

use super::answer::{Routes, UNAVAILABLE, problem};
use super::catalogue::{Object, ObjectKey};
use super::provider_keys::TOKEN_NAME;
use hyper::header::COOKIE;
use hyper::{HeaderMap, StatusCode};
use std::net::IpAddr;
use swarmedge_core::accounting::certs::CertError;
use swarmedge_core::accounting::edge_auth::{self, Shown, TokenError, Withheld};
use swarmedge_core::accounting::grants::{GrantError, check_chain};
use swarmedge_core::content::Access;
use swarmedge_core::ids::VersionId;
use swarmedge_core::wire::records::Grant;
use swarmedge_ground::edge_api::{GRANT, parse_grant};
use swarmedge_ground::host::unix_ms;
use swarmedge_ground::http::Problem;
use swarmedge_ground::rt::Rt;

/// Time after a grant's expiry during which it still opens content, milliseconds; it can be renewed for as long.
const GRANT_GRACE_MS: u64 = 10 * 60 * 1000;

/// The parts of a request that may carry a grant or a token.
pub(super) struct RequestParts<'a> {
    /// Header fields of the request.
    pub(super) fields: &'a HeaderMap,
    /// Query of the request's URL.
    pub(super) query: Option<&'a str>,
    /// IP address of the client.
    pub(super) from: IpAddr,
}

impl<R: Rt> Routes<R> {
    /// Decides whether a request may have a version of an object; returns the grant that the request carries.
    pub(super) async fn admit(
        &self,
        asked: &RequestParts<'_>,
        (key, object, version): (&ObjectKey, &Object, VersionId),
    ) -> Result<Option<Box<Grant>>, Box<Problem>> {
        let grant = self.open_grant(asked.fields, version)?.map(Box::new);
        if grant.is_none() && object.access == Access::Token {
            let keys = self.published.provider_keys().await;
            let name = keys.of(key.0).map_or(TOKEN_NAME, |p| &p.token_name);
            let mut checked = None;
            for text in token_candidates(asked, name) {
                checked = self.token(key, Some(&text), asked.from).await;
                if checked == Some(Ok(())) {
                    break;
                }
            }
            edge_auth::admit(object.access, checked).map_err(withheld)?;
        }
        Ok(grant)
    }

    /// Checks a token of the object's provider; `None` if the request has none.
    pub(super) async fn token(
        &self,
        key: &ObjectKey,
        text: Option<&str>,
        from: IpAddr,
    ) -> Option<Result<(), TokenError>> {
        let text = text?;
        let keys = self.published.provider_keys().await;
        let of_provider = keys.of(key.0).map_or(&[][..], |p| &p.keys);
        let shown = Shown { provider: key.0, path: &key.1, from: from.to_canonical(), now_s: unix_ms() / 1000 };
        Some(edge_auth::check(of_provider, text, &shown))
    }

    /// Unseals and checks the grant that a request carries; a wrong grant is an error, not ignored.
    pub(super) fn open_grant(&self, fields: &HeaderMap, version: VersionId) -> Result<Option<Grant>, Box<Problem>> {
        let Some(field) = fields.get(GRANT) else { return Ok(None) };
        let bad = || problem(StatusCode::FORBIDDEN, "grant-invalid", "the grant is not one for this content");
        let expired = || problem(StatusCode::UNAUTHORIZED, "grant-expired", "ask for a new grant");
        let early = || problem(StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "the clock of this edge is behind");
        let sealed = field.to_str().ok().and_then(parse_grant).ok_or_else(bad)?;
        // an unknown seal epoch means that the grant is old
        let signed = self.seals.unseal(&sealed).ok_or_else(expired)?;
        let now_ms = unix_ms();
        if signed.grant.version != version {
            return Err(bad());
        }
        match check_chain(&self.trust, &signed, now_ms) {
            Ok(()) => {}
            // this edge's clock is behind: the client has a good grant and asks again
            Err(GrantError::Chain(CertError::Time)) if now_ms < signed.cert.body.not_before_ms => return Err(early()),
            Err(GrantError::Chain(CertError::Time)) => return Err(expired()),
            Err(GrantError::Chain(CertError::Role | CertError::Signature) | GrantError::Time) => return Err(bad()),
        }
        if now_ms > signed.grant.expires_ms.saturating_add(GRANT_GRACE_MS) {
            return Err(expired());
        }
        Ok(Some(signed.grant))
    }
}

/// Returns the texts that may be the request's token: the URL parameter `name`, else the field, else the cookie of that
/// name. A URL parameter is returned as it is and percent-decoded.
fn token_candidates(asked: &RequestParts<'_>, name: &str) -> Vec<String> {
    let value = |pair: &str| pair.trim().split_once('=').filter(|(n, _)| *n == name).map(|(_, v)| v.to_owned());
    let parameter = asked.query.into_iter().flat_map(|q| q.split('&')).find_map(value);
    if let Some(text) = parameter {
        let decoded = percent_encoding::percent_decode_str(&text).decode_utf8().ok().map(|d| d.into_owned());
        return std::iter::once(text.clone()).chain(decoded.filter(|d| *d != text)).collect();
    }
    let text = |v: &hyper::header::HeaderValue| v.to_str().ok().map(str::to_owned);
    let field = asked.fields.get(name).and_then(text);
    let cookies = asked.fields.get_all(COOKIE).iter().filter_map(text);
    let cookie = || cookies.into_iter().find_map(|line| line.split(';').find_map(value));
    field.or_else(cookie).into_iter().collect()
}

/// Converts a refusal to a problem that tells a stranger nothing about the object.
pub(super) fn withheld(why: Withheld) -> Box<Problem> {
    match why {
        Withheld::Missing => {
            problem(StatusCode::UNAUTHORIZED, "authorisation-required", "this needs its provider's authorisation")
        }
        Withheld::Expired => problem(StatusCode::UNAUTHORIZED, "token-expired", "ask the provider for a new token"),
        Withheld::Invalid => problem(StatusCode::FORBIDDEN, "token-invalid", "the token is not one for this"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_the_url_a_field_or_a_cookie_in_this_order() {
        let found = |query: Option<&str>, fields: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(*name, value.parse().expect("a value"));
            }
            token_candidates(&RequestParts { fields: &map, query, from: [127, 0, 0, 1].into() }, "tok")
        };
        assert_eq!(found(Some("a=1&tok=exp=1~hmac=2&b"), &[("tok", "x")]), ["exp=1~hmac=2"]);
        assert_eq!(found(Some("tok=exp%3D1"), &[]), ["exp%3D1", "exp=1"]);
        assert_eq!(found(Some("a=1"), &[("tok", "x"), ("cookie", "tok=y")]), ["x"]);
        assert_eq!(found(None, &[("cookie", "a=b; tok=exp=1~hmac=2; c=d")]), ["exp=1~hmac=2"]);
        assert_eq!(found(None, &[("cookie", "a=b"), ("cookie", "tok=z")]), ["z"]);
        assert_eq!(found(Some("tokk=1"), &[("cookie", "xtok=1")]), [""; 0]);
    }
}
