//! STUN messages (RFC 8489): Binding requests and answers, always with a fingerprint.

use crate::wire::DecodeError;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// RFC 8489 §5.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;
/// Bytes of the header.
pub const HEADER_LEN: usize = 20;
/// The longest message that is looked at: what fits any path unfragmented (RFC 8489 §6.1 asks for 548 at most).
pub const MESSAGE_LEN_MAX: usize = 548;

/// Types of the Binding method (RFC 8489 §5, §18.1).
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;

/// Attributes (RFC 8489 §18.3, RFC 5780 §7).
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;
/// Attributes below this number must be understood.
const OPTIONAL: u16 = 0x8000;
/// RFC 8489 §14.7.
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Which request an answer answers; unpredictable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// A Binding message, as far as this project uses it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Where do you see me?
    Request {
        /// Its id.
        id: TransactionId,
        /// Attributes that must be understood and are not: the answer is error 420.
        unknown: Vec<u16>,
    },
    /// There.
    Success {
        /// Of the request.
        id: TransactionId,
        /// XOR-MAPPED-ADDRESS.
        mapped: SocketAddr,
    },
    /// No.
    Error {
        /// Of the request.
        id: TransactionId,
        /// 300 to 699.
        code: u16,
        /// With code 420: what was not understood.
        unknown: Vec<u16>,
    },
}

impl Message {
    /// The datagram, with FINGERPRINT.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, id) = match self {
            Self::Request { id, .. } => (BINDING_REQUEST, id),
            Self::Success { id, .. } => (BINDING_SUCCESS, id),
            Self::Error { id, .. } => (BINDING_ERROR, id),
        };
        let mut out = Vec::with_capacity(64);
        out.extend(kind.to_be_bytes());
        out.extend([0; 2]);
        out.extend(MAGIC_COOKIE.to_be_bytes());
        out.extend(id.0);
        match self {
            Self::Request { .. } => {}
            Self::Success { id, mapped } => attribute(&mut out, XOR_MAPPED_ADDRESS, &xor_address(*mapped, *id)),
            Self::Error { code, unknown, .. } => {
                let [class, number] = [code / 100, code % 100].map(|n| u8::try_from(n).unwrap_or(u8::MAX));
                attribute(&mut out, ERROR_CODE, &[0, 0, class, number]);
                if !unknown.is_empty() {
                    let list: Vec<u8> = unknown.iter().flat_map(|a| a.to_be_bytes()).collect();
                    attribute(&mut out, UNKNOWN_ATTRIBUTES, &list);
                }
            }
        }
        // the fingerprint covers a length that counts it
        set_len(&mut out, 8);
        let crc = crc32(&out) ^ FINGERPRINT_XOR;
        attribute(&mut out, FINGERPRINT, &crc.to_be_bytes());
        set_len(&mut out, 0);
        out
    }

    /// Reads a datagram. Optional attributes that are not known are skipped. A fingerprint must be right and last; an
    /// answer must have one, since it shares its socket with QUIC, and no attribute that must be understood and is not.
    pub fn decode(datagram: &[u8]) -> Result<Self, DecodeError> {
        if datagram.len() > MESSAGE_LEN_MAX {
            return Err(DecodeError::TooLong);
        }
        let (header, mut rest) = datagram.split_at_checked(HEADER_LEN).ok_or(DecodeError::Truncated)?;
        let kind = be16(header, 0);
        if usize::from(be16(header, 2)) != rest.len() || header[4..8] != MAGIC_COOKIE.to_be_bytes() {
            return Err(DecodeError::Invalid);
        }
        let id = TransactionId(header[8..20].try_into().map_err(|_| DecodeError::Truncated)?);
        let (mut mapped, mut code, mut refused, mut unknown) = (None, None, Vec::new(), Vec::new());
        let mut printed = false;
        while !rest.is_empty() {
            let at = datagram.len() - rest.len();
            let (name, value);
            (name, value, rest) = take_attribute(rest)?;
            match name {
                XOR_MAPPED_ADDRESS if mapped.is_none() => mapped = Some(read_xor_address(value, id)?),
                ERROR_CODE if code.is_none() => code = Some(read_error(value)?),
                UNKNOWN_ATTRIBUTES => refused = value.chunks_exact(2).map(|pair| be16(pair, 0)).collect(),
                FINGERPRINT => {
                    let right = (crc32(&datagram[..at]) ^ FINGERPRINT_XOR).to_be_bytes();
                    if value != right || !rest.is_empty() {
                        return Err(DecodeError::Invalid);
                    }
                    printed = true;
                }
                // repeated (RFC 8489 §14: the first counts), or optional
                XOR_MAPPED_ADDRESS | ERROR_CODE | OPTIONAL.. => {}
                _ => unknown.push(name),
            }
        }
        match (kind, mapped, code) {
            (BINDING_REQUEST, _, _) => Ok(Self::Request { id, unknown }),
            (BINDING_SUCCESS, Some(mapped), _) if printed && unknown.is_empty() => Ok(Self::Success { id, mapped }),
            (BINDING_ERROR, _, Some(code)) if printed => Ok(Self::Error { id, code, unknown: refused }),
            _ => Err(DecodeError::Invalid),
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Sets the header's length to what follows it plus `more`.
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

/// Name, value, and what follows the padding.
fn take_attribute(bytes: &[u8]) -> Result<(u16, &[u8], &[u8]), DecodeError> {
    let (head, rest) = bytes.split_at_checked(4).ok_or(DecodeError::Truncated)?;
    let len = usize::from(be16(head, 2));
    let (padded, rest) = rest.split_at_checked(len.next_multiple_of(4)).ok_or(DecodeError::Truncated)?;
    Ok((be16(head, 0), &padded[..len], rest))
}

/// The cookie and the id: what addresses are hidden with, so that no NAT on the way rewrites them (RFC 8489 §14.2).
fn mask(id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    mask
}

fn xor_address(addr: SocketAddr, id: TransactionId) -> Vec<u8> {
    let mask = mask(id);
    let (family, octets) = match addr.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let port = addr.port().to_be_bytes();
    let mut value = alloc::vec![0, family, port[0] ^ mask[0], port[1] ^ mask[1]];
    value.extend(octets.iter().zip(mask).map(|(o, m)| o ^ m));
    value
}

fn read_xor_address(value: &[u8], id: TransactionId) -> Result<SocketAddr, DecodeError> {
    let (head, octets) = value.split_at_checked(4).ok_or(DecodeError::Truncated)?;
    let mask = mask(id);
    let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
    let plain: Vec<u8> = octets.iter().zip(mask).map(|(o, m)| o ^ m).collect();
    let ip: IpAddr = match (head[1], octets.len()) {
        (1, 4) => {
            <[u8; 4]>::try_from(&plain[..]).map(|o| Ipv4Addr::from(o).into()).map_err(|_| DecodeError::Invalid)?
        }
        (2, 16) => {
            <[u8; 16]>::try_from(&plain[..]).map(|o| Ipv6Addr::from(o).into()).map_err(|_| DecodeError::Invalid)?
        }
        _ => return Err(DecodeError::Invalid),
    };
    Ok(SocketAddr::new(ip, port))
}

fn read_error(value: &[u8]) -> Result<u16, DecodeError> {
    match value {
        [_, _, class @ 3..=6, number @ 0..=99, ..] => Ok(u16::from(*class) * 100 + u16::from(*number)),
        _ => Err(DecodeError::Invalid),
    }
}

/// CRC-32 of ISO 3309, as RFC 8489 §14.7 wants it. Messages are short: no table.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const ID: TransactionId = TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn the_checksum_is_the_usual_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn addresses_are_hidden_as_in_the_test_vectors_of_rfc_5769() {
        // §2.2 and §2.3
        let v4 = [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        assert_eq!(xor_address(addr("192.0.2.1:32853"), ID), v4);
        assert_eq!(read_xor_address(&v4, ID), Ok(addr("192.0.2.1:32853")));
        let v6 = [
            0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2,
            0xb9, 0xd9,
        ];
        let mapped = addr("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
        assert_eq!(xor_address(mapped, ID), v6);
        assert_eq!(read_xor_address(&v6, ID), Ok(mapped));
    }

    #[test]
    fn every_message_reads_back_and_no_flipped_bit_does() {
        let messages = [
            Message::Request { id: ID, unknown: vec![] },
            Message::Success { id: ID, mapped: addr("203.0.113.9:1") },
            Message::Success { id: ID, mapped: addr("[2001:db8::1]:65535") },
            Message::Error { id: ID, code: 420, unknown: vec![0x7f00, 3] },
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes).as_ref(), Ok(&message));
            // of a request the fingerprint may be missing, so another name for it is none the worse
            let name = (bytes.len() - 8) * 8..(bytes.len() - 6) * 8;
            let optional = matches!(message, Message::Request { .. });
            for bit in (0..bytes.len() * 8).filter(|bit| !(optional && name.contains(bit))) {
                let mut bad = bytes.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Message::decode(&bad).is_err(), "bit {bit}");
            }
            for len in 0..bytes.len() {
                assert!(Message::decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn a_request_that_demands_what_is_not_known_says_so() {
        let mut bytes = Message::Request { id: ID, unknown: vec![] }.encode();
        bytes.truncate(HEADER_LEN);
        attribute(&mut bytes, 0x0003, &[0, 0, 0, 6]);
        attribute(&mut bytes, 0x8022, b"software");
        set_len(&mut bytes, 0);
        assert_eq!(Message::decode(&bytes), Ok(Message::Request { id: ID, unknown: vec![3] }));
    }
}
