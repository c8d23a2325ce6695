//! Message integrity: proves that the sender of a message knows a key (RFC 8489 §14.5, §14.6).

use super::{HEADER_LEN, header, number, take_attribute};
use alloc::vec::Vec;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;

/// Hash function of a message integrity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// MESSAGE-INTEGRITY with HMAC-SHA1, which RFC 5389 agents understand.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256 with HMAC-SHA256 (RFC 8489 §14.6).
    Sha256,
}

impl Hash {
    /// Returns the length of the uncut MAC in bytes.
    pub(super) const fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// Returns the type of the STUN attribute that carries the MAC.
    pub(super) const fn attribute(self) -> u16 {
        match self {
            Self::Sha1 => number::MESSAGE_INTEGRITY,
            Self::Sha256 => number::MESSAGE_INTEGRITY_SHA256,
        }
    }

    /// Returns the MAC of a message that is given in parts.
    pub(super) fn mac(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Self::Sha1 => keyed::<Hmac<Sha1>>(key, parts).finalize().into_bytes().to_vec(),
            Self::Sha256 => keyed::<Hmac<Sha256>>(key, parts).finalize().into_bytes().to_vec(),
        }
    }

    /// Verifies a MAC in constant time. A SHA-256 MAC may be cut to as little as 16 bytes, in words of four.
    fn verify(self, key: &[u8], parts: &[&[u8]], mac: &[u8]) -> bool {
        let fits = mac.len() == self.len()
            || self == Self::Sha256 && (16..self.len()).contains(&mac.len()) && mac.len().is_multiple_of(4);
        fits && match self {
            Self::Sha1 => keyed::<Hmac<Sha1>>(key, parts).verify_truncated_left(mac).is_ok(),
            Self::Sha256 => keyed::<Hmac<Sha256>>(key, parts).verify_truncated_left(mac).is_ok(),
        }
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// Result of checking a message's integrity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// The message has no integrity attribute.
    Missing,
    /// The MAC does not match: another key was used, or the message was changed on its way.
    Wrong,
    /// The sender of the message knows the key.
    Right,
}

/// Checks a message's integrity attribute under `key`. If both kinds are present, MESSAGE-INTEGRITY-SHA256 counts.
#[must_use]
pub fn check(bytes: &[u8], key: &[u8]) -> Integrity {
    let Ok((_, mut rest)) = header(bytes) else { return Integrity::Wrong };
    let mut found = None;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let Ok((name, value, after)) = take_attribute(rest) else { return Integrity::Wrong };
        rest = after;
        match name {
            number::MESSAGE_INTEGRITY if found.is_none() => found = Some((Hash::Sha1, at, value)),
            number::MESSAGE_INTEGRITY_SHA256 => {
                found = Some((Hash::Sha256, at, value));
                break;
            }
            _ => {}
        }
    }
    let Some((hash, at, mac)) = found else { return Integrity::Missing };
    // the header as if the message ended behind this attribute
    let Ok(len) = u16::try_from(at - HEADER_LEN + 4 + mac.len()) else { return Integrity::Wrong };
    let parts = [&bytes[..2], &len.to_be_bytes(), &bytes[4..at]];
    if hash.verify(key, &parts, mac) { Integrity::Right } else { Integrity::Wrong }
}
