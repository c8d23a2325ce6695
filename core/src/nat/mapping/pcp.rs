//! The Port Control Protocol (RFC 6887), as far as a client needs it: MAP requests for UDP or TCP over IPv4, their
//! answers, and the announcement of a server that has lost its state.

use crate::codec::DecodeError;
use crate::nat::Transport;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// Protocol version of PCP (RFC 6887 §7.1).
pub const VERSION: u8 = 2;
/// Maximum length of an accepted message in bytes (RFC 6887 §7).
pub const MESSAGE_LEN_MAX: usize = 1100;
const HEADER_LEN: usize = 24;
const MAP_LEN: usize = 36;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
/// IANA's numbers of the transport protocols.
const UDP: u8 = 17;
const TCP: u8 = 6;
/// Result code UNSUPP_VERSION: the server does not speak the request's protocol version (RFC 6887 §9).
pub const UNSUPPORTED_VERSION: u8 = 1;

/// Nonce of a mapping's owner, without which a host not on the network path can neither answer requests nor change
/// the mapping (RFC 6887 §11.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 12]);

const fn number(over: Transport) -> u8 {
    match over {
        Transport::Udp => UDP,
        Transport::Tcp => TCP,
    }
}

const fn named(number: u8) -> Result<Transport, DecodeError> {
    match number {
        UDP => Ok(Transport::Udp),
        TCP => Ok(Transport::Tcp),
        _ => Err(DecodeError::Invalid),
    }
}

/// Request to a gateway for a port mapping (opcode MAP, RFC 6887 §11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapRequest {
    /// Nonce of the mapping's owner.
    pub nonce: Nonce,
    /// Transport protocol of the port.
    pub over: Transport,
    /// Local address and port to be mapped; the address is the request's source address.
    pub internal: SocketAddrV4,
    /// Requested external address and port, or the assigned ones in a renewal. An unspecified address is chosen by
    /// the server.
    pub external: SocketAddrV4,
    /// Requested lifetime in seconds; 0 deletes the mapping.
    pub lifetime_s: u32,
}

impl MapRequest {
    /// Encodes the request, as a client sends it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + MAP_LEN);
        out.extend([VERSION, MAP, 0, 0]);
        out.extend(self.lifetime_s.to_be_bytes());
        out.extend(self.internal.ip().to_ipv6_mapped().octets());
        out.extend(self.nonce.0);
        out.extend([number(self.over), 0, 0, 0]);
        out.extend(self.internal.port().to_be_bytes());
        out.extend(self.external.port().to_be_bytes());
        out.extend(self.external.ip().to_ipv6_mapped().octets());
        out
    }
}

/// Answer or announcement of a PCP server (gateway).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    /// A mapping was created or renewed.
    Mapped(Mapped),
    /// A request was refused.
    Refused {
        /// Result code (RFC 6887 §7.4); never 0.
        code: u8,
        /// Protocol version that the server speaks.
        version: u8,
        /// Nonce of the request; `None` if the answer does not repeat it.
        nonce: Option<Nonce>,
        /// Seconds during which the same request must not be repeated.
        wait_s: u32,
    },
    /// The server announced itself; a lower epoch than expected means lost mappings (RFC 6887 §14.1).
    Announced {
        /// Seconds since the server's mapping table was last reset.
        epoch_s: u32,
    },
}

/// Port mapping, as the gateway reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapped {
    /// Nonce of the mapping's owner.
    pub nonce: Nonce,
    /// Transport protocol of the port.
    pub over: Transport,
    /// Local port of this host.
    pub internal_port: u16,
    /// External address and port of the mapping.
    pub external: SocketAddrV4,
    /// Granted lifetime in seconds.
    pub lifetime_s: u32,
    /// Seconds since the server's mapping table was last reset.
    pub epoch_s: u32,
}

impl Answer {
    /// Decodes an answer, as a client receives it. Options, which were not requested, are skipped (RFC 6887 §7.3).
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_LEN_MAX || !bytes.len().is_multiple_of(4) {
            return Err(DecodeError::TooLong);
        }
        let (header, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(DecodeError::Truncated)?;
        let (version, opcode, code) = (header[0], header[1], header[3]);
        let [lifetime_s, epoch_s] = [4, 8].map(|at| be32(header, at));
        if opcode & RESPONSE == 0 || version != VERSION && code != UNSUPPORTED_VERSION {
            return Err(DecodeError::Invalid);
        }
        if code != 0 {
            let nonce = rest.first_chunk::<12>().filter(|_| rest.len() >= MAP_LEN).map(|n| Nonce(*n));
            return Ok(Self::Refused { code, version, nonce, wait_s: lifetime_s });
        }
        match opcode ^ RESPONSE {
            ANNOUNCE => Ok(Self::Announced { epoch_s }),
            MAP => {
                let map = rest.get(..MAP_LEN).ok_or(DecodeError::Truncated)?;
                let nonce = Nonce(*map.first_chunk::<12>().ok_or(DecodeError::Truncated)?);
                let ip = Ipv6Addr::from(*map.last_chunk::<16>().ok_or(DecodeError::Truncated)?);
                let (over, ip) = (named(map[12])?, ip.to_ipv4_mapped().ok_or(DecodeError::Invalid)?);
                let external = SocketAddrV4::new(ip, be16(map, 18));
                Ok(Self::Mapped(Mapped { nonce, over, internal_port: be16(map, 16), external, lifetime_s, epoch_s }))
            }
            _ => Err(DecodeError::Invalid),
        }
    }

    /// Encodes the answer, as a server sends it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = |version: u8, opcode: u8, code: u8, lifetime: u32, epoch: u32| {
            let mut out = alloc::vec![version, opcode | RESPONSE, 0, code];
            out.extend(lifetime.to_be_bytes());
            out.extend(epoch.to_be_bytes());
            out.extend([0; 12]);
            out
        };
        match self {
            Self::Announced { epoch_s } => head(VERSION, ANNOUNCE, 0, 0, *epoch_s),
            Self::Refused { code, version, nonce, wait_s } => {
                let mut out = head(*version, MAP, *code, *wait_s, 0);
                if let Some(nonce) = nonce {
                    out.extend(body(*nonce, (Transport::Udp, 0), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));
                }
                out
            }
            Self::Mapped(m) => {
                let mut out = head(VERSION, MAP, 0, m.lifetime_s, m.epoch_s);
                out.extend(body(m.nonce, (m.over, m.internal_port), m.external));
                out
            }
        }
    }
}

fn body(nonce: Nonce, (over, internal_port): (Transport, u16), external: SocketAddrV4) -> Vec<u8> {
    let mut out = nonce.0.to_vec();
    out.extend([number(over), 0, 0, 0]);
    out.extend(internal_port.to_be_bytes());
    out.extend(external.port().to_be_bytes());
    out.extend(external.ip().to_ipv6_mapped().octets());
    out
}

/// Decodes a MAP request, as a server receives it.
pub fn decode_request(bytes: &[u8]) -> Result<MapRequest, DecodeError> {
    let (header, map) = bytes.split_at_checked(HEADER_LEN).ok_or(DecodeError::Truncated)?;
    let nonce = Nonce(*map.first_chunk::<12>().ok_or(DecodeError::Truncated)?);
    if map.len() != MAP_LEN || header[..2] != [VERSION, MAP] {
        return Err(DecodeError::Invalid);
    }
    let ip = |octets: &[u8]| {
        let octets: [u8; 16] = octets.try_into().map_err(|_| DecodeError::Truncated)?;
        Ipv6Addr::from(octets).to_ipv4_mapped().ok_or(DecodeError::Invalid)
    };
    Ok(MapRequest {
        nonce,
        over: named(map[12])?,
        internal: SocketAddrV4::new(ip(&header[8..24])?, be16(map, 16)),
        external: SocketAddrV4::new(ip(&map[20..36])?, be16(map, 18)),
        lifetime_s: be32(header, 4),
    })
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> SocketAddrV4 {
        text.parse().expect("an endpoint")
    }

    fn request() -> MapRequest {
        MapRequest {
            nonce: Nonce(*b"twelve bytes"),
            over: Transport::Udp,
            internal: endpoint("192.168.1.2:5000"),
            external: endpoint("0.0.0.0:50000"),
            lifetime_s: 7200,
        }
    }

    /// Tests the layout of requests in the figures of RFC 6887 §7.1 and §11.1.
    #[test]
    fn a_request_has_the_bytes_of_the_rfc() {
        let mut bytes = alloc::vec![2, 1, 0, 0, 0, 0, 0x1c, 0x20];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 2]);
        bytes.extend(b"twelve bytes");
        bytes.extend([17, 0, 0, 0, 0x13, 0x88, 0xc3, 0x50]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(request().encode(), bytes);
        assert_eq!(decode_request(&bytes), Ok(request()));
        let tcp = MapRequest { over: Transport::Tcp, ..request() };
        bytes[36] = 6;
        assert_eq!((tcp.encode(), decode_request(&bytes)), (bytes, Ok(tcp)));
    }

    /// Tests the layout of answers in the figures of RFC 6887 §7.2 and §11.1.
    #[test]
    fn an_answer_is_read_as_the_rfc_writes_it() {
        let mut bytes = alloc::vec![2, 0x81, 0, 0, 0, 0, 0x0e, 0x10, 0, 1, 0, 0];
        bytes.extend([0; 12]);
        bytes.extend(b"twelve bytes");
        bytes.extend([17, 0, 0, 0, 0x13, 0x88, 0xc3, 0x51]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 5]);
        let mapped = Mapped {
            nonce: Nonce(*b"twelve bytes"),
            over: Transport::Udp,
            internal_port: 5000,
            external: endpoint("203.0.113.5:50001"),
            lifetime_s: 3600,
            epoch_s: 65_536,
        };
        assert_eq!(Answer::decode(&bytes), Ok(Answer::Mapped(mapped)));
        assert_eq!(Answer::Mapped(mapped).encode(), bytes);
        for len in 0..bytes.len() {
            assert!(Answer::decode(&bytes[..len]).is_err(), "{len} bytes are no answer");
        }
        let with_option = [&bytes[..], &[1, 0, 0, 0]].concat();
        assert_eq!(Answer::decode(&with_option), Ok(Answer::Mapped(mapped)), "options are passed over");
        let bent = |at: usize, to: u8| {
            let mut bent = bytes.clone();
            bent[at] = to;
            Answer::decode(&bent)
        };
        assert!(bent(0, 1).is_err() && bent(1, 1).is_err(), "another version, a request");
        assert_eq!(bent(36, 6), Ok(Answer::Mapped(Mapped { over: Transport::Tcp, ..mapped })));
        assert!(bent(36, 1).is_err(), "ICMP");
        assert!(bent(44, 1).is_err(), "an external IPv6 address");
    }

    #[test]
    fn a_refusal_says_why_and_for_how_long() {
        let refused = Answer::Refused { code: 2, version: 2, nonce: Some(Nonce([7; 12])), wait_s: 1800 };
        assert_eq!(Answer::decode(&refused.encode()), Ok(refused));
        let short = Answer::Refused { code: 1, version: 1, nonce: None, wait_s: 0 };
        assert_eq!(Answer::decode(&short.encode()), Ok(short), "a server of another version says no more");
        let announced = Answer::Announced { epoch_s: 3 };
        assert_eq!(Answer::decode(&announced.encode()), Ok(announced));
    }
}
