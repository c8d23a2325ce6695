//! Connectivity checks: STUN Binding requests and answers (RFC 8445 §7) authenticated with a key that only the two
//! introduced peers and their CNs know. The introduction's id is the user name. A message that fails authentication
//! is ignored: no answer, no error.

use super::io::Role;
use crate::ids::IntroId;
use crate::nat::stun::integrity::{self, Hash, Integrity};
use crate::nat::stun::{Attribute, Class, Message, TransactionId};
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Received connectivity check, not authenticated yet.
pub(super) struct Incoming<'a> {
    bytes: &'a [u8],
    message: Message,
}

/// Kind of message that a received check claims to be.
pub(super) enum Claim {
    /// Request for this introduction, sent by the peer in this role.
    Request { intro: IntroId, by: Role, nominates: bool },
    /// Answer to a check that this host sent.
    Answer,
}

const fn mark(role: Role) -> u8 {
    match role {
        Role::Downloader => b'd',
        Role::Uploader => b'u',
    }
}

/// Returns the USERNAME attribute of a connectivity check: the introduction's id in hexadecimal and the sender's
/// role, so that a check sent back to its sender is not accepted.
fn username(intro: IntroId, by: Role) -> Vec<u8> {
    let digit = |n: u8| b"0123456789abcdef"[usize::from(n & 15)];
    let hex = intro.0.iter().flat_map(|b| [digit(b >> 4), digit(*b)]);
    hex.chain([b':', mark(by)]).collect()
}

fn read_username(name: &[u8]) -> Option<(IntroId, Role)> {
    let (hex, rest) = name.split_at_checked(2 * IntroId::LEN)?;
    let role = match rest {
        b":d" => Role::Downloader,
        b":u" => Role::Uploader,
        _ => return None,
    };
    core::str::from_utf8(hex).ok()?.parse().ok().map(|intro| (intro, role))
}

/// Returns whether a STUN datagram belongs to a connectivity check rather than to a STUN server.
#[must_use]
pub fn is_check(bytes: &[u8]) -> bool {
    let Ok(message) = Message::decode(bytes) else { return false };
    // of a check's answer the integrity is the only mark; whose key it is shows when it is looked at
    message.username().is_some()
        || message.class == Class::Success && integrity::check(bytes, &[]) != Integrity::Missing
}

/// Encodes a connectivity check, or an indication, which only opens the sender's NAT, as `class` says. `by`: the role
/// of the sender.
pub(super) fn request(
    (intro, key): (IntroId, &[u8; 16]),
    by: Role,
    id: TransactionId,
    (class, nominates): (Class, bool),
) -> Vec<u8> {
    let mut attributes = alloc::vec![Attribute::Username(username(intro, by))];
    attributes.extend(nominates.then_some(Attribute::UseCandidate));
    Message::new(class, id, attributes).encode_signed(key, Hash::Sha256)
}

/// Encodes the answer to a connectivity check that came from `from`.
pub(super) fn answer(key: &[u8; 16], id: TransactionId, from: SocketAddr) -> Vec<u8> {
    Message::new(Class::Success, id, alloc::vec![Attribute::XorMapped(from)]).encode_signed(key, Hash::Sha256)
}

impl<'a> Incoming<'a> {
    /// Decodes a datagram as a connectivity check; `None` if it cannot be one.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let message = Message::decode(bytes).ok().filter(|m| m.unknown.is_empty())?;
        Some(Self { bytes, message })
    }

    pub(super) const fn id(&self) -> TransactionId {
        self.message.id
    }

    pub(super) fn claim(&self) -> Option<Claim> {
        match self.message.class {
            Class::Request => {
                let (intro, by) = read_username(self.message.username()?)?;
                let nominates = self.message.attributes.contains(&Attribute::UseCandidate);
                Some(Claim::Request { intro, by, nominates })
            }
            Class::Success => self.message.mapped().map(|_| Claim::Answer),
            Class::Indication | Class::Error => None,
        }
    }

    /// Returns whether the message was authenticated with `key`, so that the sender knows it and nobody changed the
    /// message.
    pub(super) fn is_of(&self, key: &[u8; 16]) -> bool {
        integrity::check(self.bytes, key) == Integrity::Right
    }
}
