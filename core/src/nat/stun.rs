//! STUN messages (RFC 8489) of the Binding method, with the attributes of behaviour discovery (RFC 5780) and of
//! connectivity checks (RFC 8445), and the two kinds of message authentication.

pub mod integrity;
#[cfg(test)]
mod tests;

use super::cookie;
use crate::codec::DecodeError;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use integrity::Hash;

/// Magic cookie of the STUN header (RFC 8489 §5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Length of the STUN header in bytes.
pub const HEADER_LEN: usize = 20;
/// Maximum message length in bytes: the header's length field counts in words of four bytes up to 65,532.
pub const MESSAGE_LEN_MAX: usize = HEADER_LEN + 65_532;
/// Maximum length of an accepted datagram in bytes.
pub const DATAGRAM_LEN_MAX: usize = 4_096;
/// Maximum number of attributes in an accepted message.
pub const ATTRIBUTES_MAX: usize = 256;

/// Numbers of the attributes (RFC 8489 §18.3, RFC 8445 §16.1, RFC 5780 §9.1).
mod number {
    pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(super) const CHANGE_REQUEST: u16 = 0x0003;
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PRIORITY: u16 = 0x0024;
    pub(super) const USE_CANDIDATE: u16 = 0x0025;
    pub(super) const PADDING: u16 = 0x0026;
    pub(super) const RESPONSE_PORT: u16 = 0x0027;
    pub(super) const SOFTWARE: u16 = 0x8022;
    pub(super) const FINGERPRINT: u16 = 0x8028;
    pub(super) const ICE_CONTROLLED: u16 = 0x8029;
    pub(super) const ICE_CONTROLLING: u16 = 0x802A;
    pub(super) const RESPONSE_ORIGIN: u16 = 0x802B;
    pub(super) const OTHER_ADDRESS: u16 = 0x802C;
    /// First number of the attributes that a receiver may ignore.
    pub(super) const OPTIONAL: u16 = 0x8000;
    /// DIAL-BACK, a number unassigned at IANA, among the attributes that a receiver may ignore.
    pub(super) const DIAL_BACK: u16 = 0xC5E1;
}

/// CHANGE-REQUEST (RFC 5780 §7.2) with both flags.
pub const CHANGE_REQUEST: u16 = number::CHANGE_REQUEST;
/// Value that FINGERPRINT is XORed with (RFC 8489 §14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;
const FINGERPRINT_LEN: usize = 8;

/// Transaction identifier: an unpredictable value that an answer copies from its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// The class of a message (RFC 8489 §5); its method is always Binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Request, to which an answer is expected.
    Request,
    /// Indication, to which no answer is sent.
    Indication,
    /// Success response to a request.
    Success,
    /// Error response to a request.
    Error,
}

impl Class {
    /// Message types (RFC 8489 §5, §18.2).
    const TYPES: [(u16, Self); 4] =
        [(0x0001, Self::Request), (0x0011, Self::Indication), (0x0101, Self::Success), (0x0111, Self::Error)];
}

/// One attribute of a STUN message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// MAPPED-ADDRESS: source address of the request, unmasked; sent only by RFC 3489 servers.
    Mapped(SocketAddr),
    /// XOR-MAPPED-ADDRESS: source address of the request, as the server saw it.
    XorMapped(SocketAddr),
    /// RESPONSE-ORIGIN: source address of the answer.
    ResponseOrigin(SocketAddr),
    /// OTHER-ADDRESS: the server's other address and port, used when a request asks to change both.
    OtherAddress(SocketAddr),
    /// CHANGE-REQUEST: asks the server to answer from its other address, other port, or both.
    ChangeRequest {
        /// Whether to answer from the other address.
        address: bool,
        /// Whether to answer from the other port.
        port: bool,
    },
    /// RESPONSE-PORT: asks the server to answer to this port of the client.
    ResponsePort(u16),
    /// PADDING: number of bytes without meaning.
    Padding(u16),
    /// USERNAME: name of the key that protects a connectivity check.
    Username(Vec<u8>),
    /// ERROR-CODE: 300 to 699. The reason phrase, for humans, is dropped.
    ErrorCode(u16),
    /// UNKNOWN-ATTRIBUTES: numbers not understood, with error 420.
    UnknownAttributes(Vec<u16>),
    /// SOFTWARE: name of the sender's program, for humans.
    Software(Vec<u8>),
    /// PRIORITY of a candidate (RFC 8445 §7.1.1).
    Priority(u32),
    /// USE-CANDIDATE: nominates the path (RFC 8445 §7.1.2).
    UseCandidate,
    /// ICE-CONTROLLED, with its tie-breaker (RFC 8445 §7.1.3).
    IceControlled(u64),
    /// ICE-CONTROLLING, with its tie-breaker (RFC 8445 §7.1.3).
    IceControlling(u64),
    /// DIAL-BACK, over TCP: asks the server to connect from another address to this port of the client (0: the
    /// request's source port), and to send an indication with this request's identifier there.
    DialBack(u16),
    /// REFLEXIVE-COOKIE: a cookie or a request for one ([`super::cookie`]).
    Cookie(Vec<u8>),
    /// Unknown attribute that may be ignored: its number (0x8000 up) and value.
    Other(u16, Vec<u8>),
}

/// STUN Binding message. Its authentication is checked by [`integrity::check`] and added by
/// [`Message::encode_signed`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Class: request, indication, success or error.
    pub class: Class,
    /// Transaction identifier; an answer repeats its request's.
    pub id: TransactionId,
    /// Attributes in order; of duplicates the first counts (RFC 8489 §14).
    pub attributes: Vec<Attribute>,
    /// Numbers of received attributes that are unknown here and must not be ignored (below 0x8000); never encoded.
    pub unknown: Vec<u16>,
}

impl Message {
    /// Creates a message with these attributes.
    #[must_use]
    pub const fn new(class: Class, id: TransactionId, attributes: Vec<Attribute>) -> Self {
        Self { class, id, attributes, unknown: Vec::new() }
    }

    /// Creates a Binding request without attributes.
    #[must_use]
    pub const fn request(id: TransactionId) -> Self {
        Self::new(Class::Request, id, Vec::new())
    }

    /// Returns the first attribute value that `pick` accepts.
    pub fn find<'a, T>(&'a self, pick: impl Fn(&'a Attribute) -> Option<T>) -> Option<T> {
        self.attributes.iter().find_map(pick)
    }

    /// Returns the request's source address as the server saw it (XOR-MAPPED-ADDRESS or MAPPED-ADDRESS of the
    /// answer).
    #[must_use]
    pub fn mapped(&self) -> Option<SocketAddr> {
        let xored = self.find(|a| if let Attribute::XorMapped(addr) = a { Some(*addr) } else { None });
        xored.or_else(|| self.find(|a| if let Attribute::Mapped(addr) = a { Some(*addr) } else { None }))
    }

    /// Returns the OTHER-ADDRESS, if there is one.
    #[must_use]
    pub fn other_address(&self) -> Option<SocketAddr> {
        self.find(|a| if let Attribute::OtherAddress(addr) = a { Some(*addr) } else { None })
    }

    /// Returns the ERROR-CODE, if there is one.
    #[must_use]
    pub fn error_code(&self) -> Option<u16> {
        self.find(|a| if let Attribute::ErrorCode(code) = a { Some(*code) } else { None })
    }

    /// Returns the REFLEXIVE-COOKIE, if there is one.
    #[must_use]
    pub fn cookie(&self) -> Option<&[u8]> {
        self.find(|a| if let Attribute::Cookie(value) = a { Some(&value[..]) } else { None })
    }

    /// Returns the port of DIAL-BACK, if present.
    #[must_use]
    pub fn dial_back(&self) -> Option<u16> {
        self.find(|a| if let Attribute::DialBack(port) = a { Some(*port) } else { None })
    }

    /// Returns the USERNAME, if there is one.
    #[must_use]
    pub fn username(&self) -> Option<&[u8]> {
        self.find(|a| if let Attribute::Username(name) = a { Some(&name[..]) } else { None })
    }

    /// Encodes the message and appends the attribute FINGERPRINT.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        finish(self.body())
    }

    /// Encodes the message and appends a message integrity (HMAC under `key`) and the attribute FINGERPRINT.
    #[must_use]
    pub fn encode_signed(&self, key: &[u8], hash: Hash) -> Vec<u8> {
        let mut out = self.body();
        // the integrity covers a length that counts it
        set_len(&mut out, 4 + hash.len());
        let mac = hash.mac(key, &[&out]);
        attribute(&mut out, hash.attribute(), &mac);
        finish(out)
    }

    fn body(&self) -> Vec<u8> {
        let kind = Class::TYPES.iter().find(|(_, class)| *class == self.class).map_or(0, |(kind, _)| *kind);
        let mut out = Vec::with_capacity(128);
        out.extend(kind.to_be_bytes());
        out.extend([0; 2]);
        out.extend(MAGIC_COOKIE.to_be_bytes());
        out.extend(self.id.0);
        self.attributes.iter().for_each(|a| a.encode(self.id, &mut out));
        out
    }

    /// Decodes a message. Unknown attributes from 0x8000 up are kept; attributes after a message integrity, which does
    /// not protect them, are ignored (RFC 8489 §14.5). A fingerprint, if present, must be right and last.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, mut rest) = header(bytes)?;
        let class = Class::TYPES.iter().find(|(kind, _)| *kind == be16(header, 0)).ok_or(DecodeError::Invalid)?.1;
        let id = TransactionId(header[8..20].try_into().map_err(|_| DecodeError::Truncated)?);
        let mut message = Self::new(class, id, Vec::new());
        let (mut protected, mut count) = (false, 0);
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let (name, value);
            (name, value, rest) = take_attribute(rest)?;
            count += 1;
            if count > ATTRIBUTES_MAX {
                return Err(DecodeError::TooLong);
            }
            match name {
                number::FINGERPRINT => {
                    let right = (crc32(&bytes[..at]) ^ FINGERPRINT_XOR).to_be_bytes();
                    if value != right || !rest.is_empty() {
                        return Err(DecodeError::Invalid);
                    }
                }
                number::MESSAGE_INTEGRITY | number::MESSAGE_INTEGRITY_SHA256 => protected = true,
                _ if protected => {}
                _ => match Attribute::decode(name, value, id)? {
                    Some(attribute) => message.attributes.push(attribute),
                    None => message.unknown.push(name),
                },
            }
        }
        Ok(message)
    }
}

impl Attribute {
    fn encode(&self, id: TransactionId, out: &mut Vec<u8>) {
        use number as n;
        match self {
            Self::Mapped(addr) => attribute(out, n::MAPPED_ADDRESS, &write_address(*addr, [0; 16])),
            Self::XorMapped(addr) => attribute(out, n::XOR_MAPPED_ADDRESS, &write_address(*addr, mask(id))),
            Self::ResponseOrigin(addr) => attribute(out, n::RESPONSE_ORIGIN, &write_address(*addr, [0; 16])),
            Self::OtherAddress(addr) => attribute(out, n::OTHER_ADDRESS, &write_address(*addr, [0; 16])),
            Self::ChangeRequest { address, port } => {
                let flags = u8::from(*address) << 2 | u8::from(*port) << 1;
                attribute(out, n::CHANGE_REQUEST, &[0, 0, 0, flags]);
            }
            Self::ResponsePort(port) => {
                let [high, low] = port.to_be_bytes();
                attribute(out, n::RESPONSE_PORT, &[high, low, 0, 0]);
            }
            Self::Padding(len) => attribute(out, n::PADDING, &alloc::vec![0; usize::from(*len)]),
            Self::Username(name) => attribute(out, n::USERNAME, name),
            Self::ErrorCode(code) => {
                let [class, number] = [code / 100, code % 100].map(|n| u8::try_from(n).unwrap_or(u8::MAX));
                attribute(out, n::ERROR_CODE, &[0, 0, class, number]);
            }
            Self::UnknownAttributes(list) => {
                let list: Vec<u8> = list.iter().flat_map(|a| a.to_be_bytes()).collect();
                attribute(out, n::UNKNOWN_ATTRIBUTES, &list);
            }
            Self::Software(text) => attribute(out, n::SOFTWARE, text),
            Self::Priority(priority) => attribute(out, n::PRIORITY, &priority.to_be_bytes()),
            Self::UseCandidate => attribute(out, n::USE_CANDIDATE, &[]),
            Self::IceControlled(tie) => attribute(out, n::ICE_CONTROLLED, &tie.to_be_bytes()),
            Self::IceControlling(tie) => attribute(out, n::ICE_CONTROLLING, &tie.to_be_bytes()),
            Self::DialBack(port) => attribute(out, n::DIAL_BACK, &port.to_be_bytes()),
            Self::Cookie(value) => attribute(out, cookie::ATTRIBUTE, value),
            Self::Other(name, value) => attribute(out, *name, value),
        }
    }

    /// Decodes an attribute. Returns `None` if its number is unknown and below 0x8000, so that it must not be
    /// ignored.
    fn decode(name: u16, value: &[u8], id: TransactionId) -> Result<Option<Self>, DecodeError> {
        use number as n;
        Ok(Some(match name {
            n::MAPPED_ADDRESS => Self::Mapped(read_address(value, [0; 16])?),
            n::XOR_MAPPED_ADDRESS => Self::XorMapped(read_address(value, mask(id))?),
            n::RESPONSE_ORIGIN => Self::ResponseOrigin(read_address(value, [0; 16])?),
            n::OTHER_ADDRESS => Self::OtherAddress(read_address(value, [0; 16])?),
            n::CHANGE_REQUEST => {
                let flags = u32::from_be_bytes(exactly(value)?);
                Self::ChangeRequest { address: flags & 4 != 0, port: flags & 2 != 0 }
            }
            // the two bytes behind the port belong to the padding or to the value, as one reads RFC 5780 §7.5
            n::RESPONSE_PORT if (2..=4).contains(&value.len()) => Self::ResponsePort(be16(value, 0)),
            n::RESPONSE_PORT => return Err(DecodeError::Invalid),
            n::PADDING => Self::Padding(u16::try_from(value.len()).map_err(|_| DecodeError::TooLong)?),
            n::USERNAME => Self::Username(value.to_vec()),
            n::ERROR_CODE => Self::ErrorCode(read_error(value)?),
            n::UNKNOWN_ATTRIBUTES => Self::UnknownAttributes(value.chunks_exact(2).map(|pair| be16(pair, 0)).collect()),
            n::SOFTWARE => Self::Software(value.to_vec()),
            n::PRIORITY => Self::Priority(u32::from_be_bytes(exactly(value)?)),
            n::USE_CANDIDATE => exactly::<0>(value).map(|_| Self::UseCandidate)?,
            n::ICE_CONTROLLED => Self::IceControlled(u64::from_be_bytes(exactly(value)?)),
            n::ICE_CONTROLLING => Self::IceControlling(u64::from_be_bytes(exactly(value)?)),
            n::DIAL_BACK => Self::DialBack(u16::from_be_bytes(exactly(value)?)),
            cookie::ATTRIBUTE => Self::Cookie(value.to_vec()),
            n::OPTIONAL.. => Self::Other(name, value.to_vec()),
            _ => return Ok(None),
        }))
    }
}

/// Splits a message into header and attributes; fails if the header's length is wrong.
fn header(bytes: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    if bytes.len() > MESSAGE_LEN_MAX {
        return Err(DecodeError::TooLong);
    }
    let (header, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(DecodeError::Truncated)?;
    let right = usize::from(be16(header, 2)) == rest.len() && header[4..8] == MAGIC_COOKIE.to_be_bytes();
    if right { Ok((header, rest)) } else { Err(DecodeError::Invalid) }
}

/// Appends the attribute FINGERPRINT, a CRC-32 (RFC 8489 §14.7), to an encoded message.
fn finish(mut out: Vec<u8>) -> Vec<u8> {
    // the fingerprint covers a length that counts it
    set_len(&mut out, FINGERPRINT_LEN);
    let crc = crc32(&out) ^ FINGERPRINT_XOR;
    attribute(&mut out, number::FINGERPRINT, &crc.to_be_bytes());
    out
}

fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], DecodeError> {
    value.try_into().map_err(|_| DecodeError::Invalid)
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Sets the length field of the header to the number of bytes after the header plus `more`.
fn set_len(out: &mut [u8], more: usize) {
    let len = u16::try_from(out.len() - HEADER_LEN + more).unwrap_or(u16::MAX);
    out[2..4].copy_from_slice(&len.to_be_bytes());
}

fn attribute(out: &mut Vec<u8>, name: u16, value: &[u8]) {
    out.extend(name.to_be_bytes());
    out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Splits off the first attribute: returns its number, its value, and the bytes after its padding.
fn take_attribute(bytes: &[u8]) -> Result<(u16, &[u8], &[u8]), DecodeError> {
    let (head, rest) = bytes.split_at_checked(4).ok_or(DecodeError::Truncated)?;
    let len = usize::from(be16(head, 2));
    let (padded, rest) = rest.split_at_checked(len.next_multiple_of(4)).ok_or(DecodeError::Truncated)?;
    Ok((be16(head, 0), &padded[..len], rest))
}

/// Returns the mask with which addresses are XORed, so that no NAT recognises and rewrites them: magic cookie and
/// transaction identifier (RFC 8489 §14.2).
fn mask(id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    mask
}

fn write_address(addr: SocketAddr, mask: [u8; 16]) -> Vec<u8> {
    let (family, octets) = match addr.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let port = addr.port().to_be_bytes();
    let mut value = alloc::vec![0, family, port[0] ^ mask[0], port[1] ^ mask[1]];
    value.extend(octets.iter().zip(mask).map(|(o, m)| o ^ m));
    value
}

fn read_address(value: &[u8], mask: [u8; 16]) -> Result<SocketAddr, DecodeError> {
    let (head, octets) = value.split_at_checked(4).ok_or(DecodeError::Truncated)?;
    let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
    let plain: Vec<u8> = octets.iter().zip(mask).map(|(o, m)| o ^ m).collect();
    let ip: IpAddr = match (head[1], octets.len()) {
        (1, 4) => Ipv4Addr::from(exactly::<4>(&plain)?).into(),
        (2, 16) => Ipv6Addr::from(exactly::<16>(&plain)?).into(),
        _ => return Err(DecodeError::Invalid),
    };
    Ok(SocketAddr::new(ip, port))
}

fn read_error(value: &[u8]) -> Result<u16, DecodeError> {
    match value {
        [_, _, class, number @ 0..=99, ..] if (3..=6).contains(&(class & 7)) => {
            Ok(u16::from(class & 7) * 100 + u16::from(*number))
        }
        _ => Err(DecodeError::Invalid),
    }
}

/// Computes the CRC-32 of ISO 3309 (RFC 8489 §14.7). No table is used, since messages are short.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
