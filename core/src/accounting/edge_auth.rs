//! Providers' tokens in the EdgeAuth 2.0 format: a provider signs with a key that it shares with the edges, and any
//! client that shows the token may download the objects that it names until it expires. A token may be used many
//! times, so range requests and resumption work.
//!
//! ```text
//! [ip=A~][st=S~]exp=S[~acl=PATTERN[!PATTERN…]][~id=…][~data=…]~hmac=HEX
//! ```
//!
//! The HMAC-SHA256 (RFC 2104) covers all text before `~hmac=`, then `~url=PATH` if there is no `acl`, then `~salt=…` if
//! the provider has one. An unknown field could be a restriction, so a token with one is refused; so is a token with a
//! repeated field. The path is always the object's own, never the request's, because a request can be spelled in many
//! ways.

use crate::content::Access;
use crate::ids::ProviderId;
use crate::limits::TOKEN_LEN_MAX;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::net::IpAddr;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A provider's secret for signing tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey {
    /// The key of the HMAC-SHA256.
    pub key: Vec<u8>,
    /// Text that is signed with each token but never sent; empty if there is none.
    pub salt: String,
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// The request for which a token is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The provider that owns the object.
    pub provider: ProviderId,
    /// The object's path, without a leading slash.
    pub path: &'a str,
    /// IP address of the client.
    pub from: IpAddr,
    /// Present time, Unix seconds.
    pub now_s: u64,
}

/// Reason for not accepting a token. Only `Malformed` and `Forged` also apply to tokens that no provider made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenError {
    /// The token does not follow the format.
    Malformed,
    /// No key of the provider made the token (for this path, if it is a `url` token).
    Forged,
    /// The token's start time is in the future.
    Early,
    /// The token's expiry time is past.
    Expired,
    /// The token is for another object or another IP address.
    Elsewhere,
}

/// Reason for withholding an object from a client. The client is told no more, so that nobody learns what is wrong
/// with a forged token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Withheld {
    /// The request showed no token.
    Missing,
    /// The token was valid until it expired.
    Expired,
    /// The token is not valid for this object, or not valid yet.
    Invalid,
}

/// Decides whether a client without a grant may download an object. `token` is the result of [`check`]; `None` if the
/// request showed no token.
pub const fn admit(access: Access, token: Option<Result<(), TokenError>>) -> Result<(), Withheld> {
    match (access, token) {
        (Access::Public, _) | (Access::Token, Some(Ok(()))) => Ok(()),
        (Access::Token, None) => Err(Withheld::Missing),
        (Access::Token, Some(Err(TokenError::Expired))) => Err(Withheld::Expired),
        (
            Access::Token,
            Some(Err(TokenError::Malformed | TokenError::Forged | TokenError::Early | TokenError::Elsewhere)),
        ) => Err(Withheld::Invalid),
    }
}

/// Checks that a key of the object's provider signed the token and that it permits the request `shown` now.
pub fn check(keys: &[TokenKey], token: &str, shown: &Shown<'_>) -> Result<(), TokenError> {
    let token = Token::parse(token).ok_or(TokenError::Malformed)?;
    let paths = spellings(shown.provider, shown.path);
    if !keys.iter().any(|key| token.is_signed_by(key, &paths)) {
        return Err(TokenError::Forged);
    }
    if token.starts_s.is_some_and(|st| shown.now_s < st) {
        return Err(TokenError::Early);
    }
    if shown.now_s >= token.expires_s {
        return Err(TokenError::Expired);
    }
    let here = token.ip.is_none_or(|ip| unescaped(ip).parse().is_ok_and(|ip: IpAddr| ip == shown.from));
    let names = token.acl.is_none_or(|acl| covers(acl, &paths));
    if here && names { Ok(()) } else { Err(TokenError::Elsewhere) }
}

/// A token split into its fields.
struct Token<'a> {
    /// The text before `~hmac=`, which the HMAC covers.
    signed: &'a str,
    hmac: [u8; 32],
    ip: Option<&'a str>,
    starts_s: Option<u64>,
    expires_s: u64,
    acl: Option<&'a str>,
}

impl<'a> Token<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.len() > TOKEN_LEN_MAX {
            return None;
        }
        let (signed, hmac) = text.rsplit_once("~hmac=")?;
        let hmac = hmac.parse::<crate::ids::Digest>().ok()?.0;
        let [mut ip, mut st, mut exp, mut acl, mut id, mut data] = [None; 6];
        for field in signed.split('~') {
            let (name, value) = field.split_once('=')?;
            let slot = match name {
                "ip" => &mut ip,
                "st" => &mut st,
                "exp" => &mut exp,
                "acl" => &mut acl,
                "id" => &mut id,
                "data" => &mut data,
                _ => return None,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let starts_s = match st {
            Some(st) => Some(seconds(st)?),
            None => None,
        };
        Some(Self { signed, hmac, ip, starts_s, expires_s: seconds(exp?)?, acl })
    }

    /// Returns whether the token's HMAC was made with `key`, for one of `paths` if the token has no `acl`. Compares
    /// in constant time.
    fn is_signed_by(&self, key: &TokenKey, paths: &[String]) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key.key) else { return false };
        mac.update(self.signed.as_bytes());
        let ends = |mut mac: Hmac<Sha256>| {
            if !key.salt.is_empty() {
                mac.update(b"~salt=");
                mac.update(key.salt.as_bytes());
            }
            mac.verify_slice(&self.hmac).is_ok()
        };
        let of_url = |path: &str| {
            let mut mac = mac.clone();
            mac.update(b"~url=");
            mac.update(path.as_bytes());
            ends(mac)
        };
        match self.acl {
            Some(_) => ends(mac),
            None => paths.iter().any(|path| of_url(path) || of_url(&escaped_early(path))),
        }
    }
}

/// Parses a number of seconds. `None` unless it consists of digits only, unlike `+5`.
fn seconds(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Returns the spellings of an object's URL path that signers use: as it is, and percent-encoded (RFC 3986) with as
/// many and with as few characters as the rules allow.
fn spellings(provider: ProviderId, path: &str) -> [String; 3] {
    let spell = |kept: &[u8]| {
        let mut out = String::new();
        let _ = write!(out, "/{provider}/");
        encode(path, kept, &mut out);
        out
    };
    let mut plain = String::new();
    let _ = write!(plain, "/{provider}/{path}");
    [plain, spell(b"/"), spell(b"/!$&'()*+,;=:@")]
}

/// Appends `text` to `out`, percent-encoding all characters except the unreserved ones (RFC 3986 §2.3) and those in
/// `kept`.
fn encode(text: &str, kept: &[u8], out: &mut String) {
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) || kept.contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
}

/// Encodes a value as EdgeAuth token generators do in their early-escape mode: form encoding with lower-case
/// hexadecimal digits.
fn escaped_early(text: &str) -> String {
    let mut out = String::new();
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else if b == b' ' {
            out.push('+');
        } else {
            let _ = write!(out, "%{b:02x}");
        }
    }
    out
}

/// Decodes the output of [`escaped_early`]; keeps anything that is not a valid escape.
fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        let hex = |c: &u8| char::from(*c).to_digit(16).and_then(|d| u8::try_from(d).ok());
        rest = tail;
        match (b, tail) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                out.push(hex(high).unwrap_or(0) << 4 | hex(low).unwrap_or(0));
                rest = after;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Returns whether one of the patterns in a token's `acl` field, separated by `!`, matches one of the paths.
fn covers(acl: &str, paths: &[String]) -> bool {
    // some generators escape the whole list of patterns
    let acl = if acl.contains('/') { String::from(acl) } else { unescaped(acl) };
    acl.split('!').any(|pattern| paths.iter().any(|path| matches(pattern.as_bytes(), path.as_bytes())))
}

/// Returns whether a pattern matches: `*` stands for any characters, slashes included, and `?` for exactly one.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // the pattern's place after its last `*`, and the text's place up to which that `*` reaches so far
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                (p, t) = (after, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests;
