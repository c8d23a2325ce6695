//! Cookies: a STUN server's signed statement of the address that a client's datagrams came from. With a cookie, an
//! address that the CN itself has not seen (IPv6 beside IPv4, another network path) may be sent to other clients. A
//! client cannot obtain a cookie for a third party's address, since the cookie is sent to that address.
//!
//! STUN attribute [`ATTRIBUTE`], in the range that receivers may ignore. In a request: the client's [`Tag`], then zeros
//! up to the length of a cookie, so that no answer is longer than its request. In the answer: the [`Cookie`]. It is
//! HMAC-SHA256, cut to 16 bytes, under a key that STUN servers and CNs derive from the sealing key of its epoch, over
//! the tag, the address and the time of issue. It lives [`LIFE_S`] seconds.

use crate::ids::PublicKey;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

/// Number of the STUN attribute REFLEXIVE-COOKIE, not assigned by IANA, among those that receivers may ignore (RFC
/// 8489 §18.3).
pub const ATTRIBUTE: u16 = 0xC5E0;
/// Length of a cookie, and of the attribute that requests a cookie, in bytes.
pub const COOKIE_LEN: usize = 24;
/// Lifetime of a cookie in seconds.
pub const LIFE_S: u32 = 300;
/// Maximum clock difference between STUN servers and CNs, in seconds.
const SKEW_S: u32 = 60;

/// Tag of the client that requests a cookie: a hash of its upload key, which is new each day. A cookie is valid for
/// its client only, and observers cannot link tags across days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag([u8; 8]);

impl Tag {
    /// Returns the tag of the client with this upload key.
    #[must_use]
    pub fn of(upload_key: &PublicKey) -> Self {
        let hash = Sha256::new().chain_update(b"swarmedge/stun-cookie-tag/1").chain_update(upload_key.0).finalize();
        let mut tag = [0; 8];
        tag.copy_from_slice(&hash[..8]);
        Self(tag)
    }

    /// Returns the value of the attribute [`ATTRIBUTE`] in a request for a cookie.
    #[must_use]
    pub fn request(self) -> Vec<u8> {
        let mut value = self.0.to_vec();
        value.resize(COOKIE_LEN, 0);
        value
    }

    /// Reads the tag from the attribute of a request for a cookie; `None` if the value is invalid.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        let (tag, rest) = value.split_first_chunk::<8>().filter(|_| value.len() == COOKIE_LEN)?;
        rest.iter().all(|b| *b == 0).then_some(Self(*tag))
    }
}

crate::wire! {
    /// Signed statement of a client's address, as sent by a STUN server.
    pub struct Cookie {
        /// Epoch (number) of the sealing key from which the cookie's key is derived.
        pub epoch: u32,
        /// Time of issue in Unix seconds.
        pub issued_s: u32,
        /// HMAC over the epoch, the time of issue, the tag and the address.
        pub mac: [u8; 16],
    }

    /// Address of a client that a STUN server confirmed, so that other clients may get it though the CN has not seen
    /// it.
    pub struct Proven {
        /// Address and port at which a STUN server saw the client, in canonical form.
        pub addr: SocketAddr,
        /// Cookie of the STUN server; `None` once the CN has checked and removed it.
        pub cookie: Option<Cookie>,
    }
}

/// Reason why a cookie is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Invalid {
    /// The sealing key of the cookie's epoch is not known.
    Epoch,
    /// The cookie is too old, or from the future.
    Expired,
    /// The MAC does not match this client, address and key.
    Forged,
}

/// Keys that authenticate cookies, with their epochs; new cookies use the first one. `Debug` shows the epochs only.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct CookieKeys(Vec<(u32, [u8; 32])>);

impl CookieKeys {
    /// Derives the cookie keys from the sealing keys of these epochs, the present one first.
    #[must_use]
    pub fn derived<'a>(seals: impl IntoIterator<Item = (u32, &'a [u8; 32])>) -> Self {
        let derive = |key: &[u8; 32]| mac(key, &[b"swarmedge/stun-cookie-key/1"]).finalize().into_bytes().into();
        Self(seals.into_iter().map(|(epoch, key)| (epoch, derive(key))).collect())
    }

    /// Issues a cookie for the client with this `tag`, seen at `addr`. Returns `None` without keys.
    #[must_use]
    pub fn issue(&self, now_ms: u64, tag: Tag, addr: SocketAddr) -> Option<Cookie> {
        let (epoch, key) = self.0.first()?;
        let issued_s = u32::try_from(now_ms / 1000).ok()?;
        let whole: [u8; 32] = over(key, *epoch, issued_s, tag, addr).finalize().into_bytes().into();
        let mut mac = [0; 16];
        mac.copy_from_slice(&whole[..16]);
        Some(Cookie { epoch: *epoch, issued_s, mac })
    }

    /// Checks that a cookie is valid at `now_ms` (Unix milliseconds) for the client with this `tag`, at this address.
    pub fn check(&self, now_ms: u64, tag: Tag, addr: SocketAddr, cookie: &Cookie) -> Result<(), Invalid> {
        let Cookie { epoch, issued_s, mac } = cookie;
        let (_, key) = self.0.iter().find(|(e, _)| e == epoch).ok_or(Invalid::Epoch)?;
        over(key, *epoch, *issued_s, tag, addr).verify_truncated_left(mac).map_err(|_| Invalid::Forged)?;
        let now_s = now_ms / 1000;
        let lives =
            u64::from(*issued_s) <= now_s + u64::from(SKEW_S) && now_s <= u64::from(*issued_s) + u64::from(LIFE_S);
        if lives { Ok(()) } else { Err(Invalid::Expired) }
    }
}

impl fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CookieKeys").field(&self.0.iter().map(|(epoch, _)| epoch).collect::<Vec<_>>()).finish()
    }
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// Returns a MAC over the tag, the time and the address, to be finalized.
fn over(key: &[u8], epoch: u32, issued_s: u32, tag: Tag, addr: SocketAddr) -> Hmac<Sha256> {
    // one form for both families, so that no address reads as another
    let ip = match addr.ip().to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let (epoch, issued, port) = (epoch.to_be_bytes(), issued_s.to_be_bytes(), addr.port().to_be_bytes());
    mac(key, &[b"swarmedge/stun-cookie/1", &epoch, &issued, &tag.0, &ip.octets(), &port])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Wire as _;

    const NOW_MS: u64 = 1_700_000_000_000;
    const ADDR: &str = "[2001:db8::5]:4000";

    fn addr(s: &str) -> SocketAddr {
        s.parse().expect("an address")
    }

    fn tag(n: u32) -> Tag {
        Tag::of(&PublicKey::numbered(n))
    }

    fn keys(epochs: &[u32]) -> CookieKeys {
        let seals: Vec<(u32, [u8; 32])> = epochs.iter().map(|e| (*e, [u8::try_from(*e).expect("few"); 32])).collect();
        CookieKeys::derived(seals.iter().map(|(e, k)| (*e, k)))
    }

    fn cookie() -> Cookie {
        keys(&[2, 3]).issue(NOW_MS, tag(1), addr(ADDR)).expect("there is a key")
    }

    #[test]
    fn a_cookie_of_a_known_epoch_is_valid_for_five_minutes() {
        let check = |keys: &CookieKeys, now_ms| keys.check(now_ms, tag(1), addr(ADDR), &cookie());
        for known in [&[2, 3][..], &[1, 2], &[3, 2]] {
            assert_eq!(check(&keys(known), NOW_MS), Ok(()));
        }
        assert_eq!(check(&keys(&[3, 4]), NOW_MS), Err(Invalid::Epoch));
        assert_eq!(check(&CookieKeys::default(), NOW_MS), Err(Invalid::Epoch));
        let life = u64::from(LIFE_S) * 1000;
        assert_eq!(check(&keys(&[2]), NOW_MS + life), Ok(()));
        assert_eq!(check(&keys(&[2]), NOW_MS + life + 1000), Err(Invalid::Expired));
        assert_eq!(check(&keys(&[2]), NOW_MS - 60_000), Ok(()), "clocks differ");
        assert_eq!(check(&keys(&[2]), NOW_MS - 61_000), Err(Invalid::Expired), "of the future");
    }

    #[test]
    fn a_forged_cookie_and_one_of_another_key_do_not_count() {
        let whole = cookie();
        for i in 0..16 {
            let mut bent = whole.clone();
            bent.mac[i] ^= 1;
            assert_eq!(keys(&[2]).check(NOW_MS, tag(1), addr(ADDR), &bent), Err(Invalid::Forged));
        }
        let other = CookieKeys::derived([(2, &[9; 32])]);
        assert_eq!(other.check(NOW_MS, tag(1), addr(ADDR), &whole), Err(Invalid::Forged));
        let older = Cookie { issued_s: whole.issued_s + 1, ..whole };
        assert_eq!(keys(&[2]).check(NOW_MS, tag(1), addr(ADDR), &older), Err(Invalid::Forged), "its age is sealed too");
    }

    #[test]
    fn a_cookie_cannot_be_widened_to_another_address_port_or_client() {
        let check = |tag, at: &str| keys(&[2]).check(NOW_MS, tag, addr(at), &cookie());
        for at in ["[2001:db8::5]:4001", "[2001:db8::6]:4000", "192.0.2.1:4000"] {
            assert_eq!(check(tag(1), at), Err(Invalid::Forged), "{at}");
        }
        assert_eq!(check(tag(2), ADDR), Err(Invalid::Forged));
    }

    #[test]
    fn the_same_address_in_its_mapped_form_is_the_same() {
        let made = keys(&[2]).issue(NOW_MS, tag(1), addr("192.0.2.1:7")).expect("there is a key");
        assert_eq!(keys(&[2]).check(NOW_MS, tag(1), addr("[::ffff:192.0.2.1]:7"), &made), Ok(()));
    }

    #[test]
    fn the_bytes_of_a_cookie_and_of_its_request_change_only_on_purpose() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| alloc::format!("{b:02x}")).collect::<alloc::string::String>();
        assert_eq!(hex(&tag(1).request()), "c82259d3e4efdf0600000000000000000000000000000000");
        assert_eq!(hex(&cookie().to_bytes()), "000000026553f10046c130d8ab436671ab349b8404c6e4c9");
        assert_eq!(Cookie::from_bytes(&cookie().to_bytes()), Ok(cookie()));
        assert_eq!(Tag::read(&tag(1).request()), Some(tag(1)));
        assert_eq!(cookie().to_bytes().len(), COOKIE_LEN);
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(alloc::format!("{:?}", keys(&[2, 3])), "CookieKeys([2, 3])");
    }
}
