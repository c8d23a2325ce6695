//! NAT-PMP (RFC 6886), as far as a client needs it: the gateway's external address, and a port mapping.

use crate::codec::DecodeError;
use crate::nat::Transport;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Protocol version of NAT-PMP (RFC 6886 §3.1).
pub const VERSION: u8 = 0;
const ADDRESS: u8 = 0;
const MAP_UDP: u8 = 1;
const MAP_TCP: u8 = 2;
const RESPONSE: u8 = 0x80;
const HEADER_LEN: usize = 8;

const fn opcode(over: Transport) -> u8 {
    match over {
        Transport::Udp => MAP_UDP,
        Transport::Tcp => MAP_TCP,
    }
}

const fn named(opcode: u8) -> Transport {
    if opcode == MAP_TCP { Transport::Tcp } else { Transport::Udp }
}

/// Request of a client to its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// Asks for the external address (RFC 6886 §3.2).
    Address,
    /// Asks for a mapping of a port of this host (RFC 6886 §3.3).
    Map {
        /// Transport protocol of the port.
        over: Transport,
        /// Local port of this host.
        internal_port: u16,
        /// Requested external port, or the assigned one in a renewal; 0 to delete.
        external_port: u16,
        /// Requested lifetime in seconds; 0 deletes the mapping.
        lifetime_s: u32,
    },
}

impl Request {
    /// Encodes the request, as a client sends it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Address => alloc::vec![VERSION, ADDRESS],
            Self::Map { over, internal_port, external_port, lifetime_s } => {
                let mut out = alloc::vec![VERSION, opcode(*over), 0, 0];
                out.extend(internal_port.to_be_bytes());
                out.extend(external_port.to_be_bytes());
                out.extend(lifetime_s.to_be_bytes());
                out
            }
        }
    }

    /// Decodes a request, as a gateway receives it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes {
            [VERSION, ADDRESS] => Ok(Self::Address),
            [VERSION, opcode @ (MAP_UDP | MAP_TCP), _, _, rest @ ..] if rest.len() == 8 => Ok(Self::Map {
                over: named(*opcode),
                internal_port: be16(rest, 0),
                external_port: be16(rest, 2),
                lifetime_s: be32(rest, 4),
            }),
            _ => Err(DecodeError::Invalid),
        }
    }
}

/// Answer or announcement of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Seconds since the gateway's mapping table was last reset (RFC 6886 §3.6).
    pub epoch_s: u32,
    /// Content of the answer.
    pub said: Said,
}

/// Content of an [`Answer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Said {
    /// External address of the gateway, requested or announced (RFC 6886 §3.2.1).
    Address(Ipv4Addr),
    /// A mapping was created or renewed.
    Mapped {
        /// Transport protocol of the port.
        over: Transport,
        /// Local port of this host.
        internal_port: u16,
        /// External port of the gateway.
        external_port: u16,
        /// Granted lifetime in seconds.
        lifetime_s: u32,
    },
    /// A request was refused with this result code (RFC 6886 §3.5); never 0.
    Refused(u16),
}

impl Answer {
    /// Decodes an answer, as a client receives it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, rest) = bytes.split_at_checked(HEADER_LEN).ok_or(DecodeError::Truncated)?;
        let (code, epoch_s) = (be16(header, 2), be32(header, 4));
        // an answer to a request that was not understood repeats its opcode, whichever that was
        if header[0] != VERSION || header[1] & RESPONSE == 0 {
            return Err(DecodeError::Invalid);
        }
        let said = match (code, header[1] ^ RESPONSE, rest) {
            (1.., _, _) => Said::Refused(code),
            (0, ADDRESS, [a, b, c, d]) => Said::Address(Ipv4Addr::new(*a, *b, *c, *d)),
            (0, opcode @ (MAP_UDP | MAP_TCP), map) if map.len() == 8 => Said::Mapped {
                over: named(opcode),
                internal_port: be16(map, 0),
                external_port: be16(map, 2),
                lifetime_s: be32(map, 4),
            },
            _ => return Err(DecodeError::Invalid),
        };
        Ok(Self { epoch_s, said })
    }

    /// Encodes the answer, as a gateway sends it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let head = |opcode: u8, code: u16| {
            let mut out = alloc::vec![VERSION, opcode | RESPONSE];
            out.extend(code.to_be_bytes());
            out.extend(self.epoch_s.to_be_bytes());
            out
        };
        match self.said {
            Said::Refused(code) => head(MAP_UDP, code),
            Said::Address(ip) => [head(ADDRESS, 0), ip.octets().to_vec()].concat(),
            Said::Mapped { over, internal_port, external_port, lifetime_s } => {
                let mut out = head(opcode(over), 0);
                out.extend(internal_port.to_be_bytes());
                out.extend(external_port.to_be_bytes());
                out.extend(lifetime_s.to_be_bytes());
                out
            }
        }
    }
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

    /// Tests the message layouts of the figures in RFC 6886 §3.2 and §3.3.
    #[test]
    fn requests_have_the_bytes_of_the_rfc() {
        let map = |over| Request::Map { over, internal_port: 5000, external_port: 50_000, lifetime_s: 7200 };
        let (map, tcp) = (map(Transport::Udp), map(Transport::Tcp));
        let bytes = [0, 1, 0, 0, 0x13, 0x88, 0xc3, 0x50, 0, 0, 0x1c, 0x20];
        assert_eq!(Request::Address.encode(), [0, 0]);
        assert_eq!(map.encode(), bytes);
        let with = |opcode| [&[0, opcode], &bytes[2..]].concat();
        assert_eq!((tcp.encode(), Request::decode(&with(2))), (with(2), Ok(tcp)));
        assert!(Request::decode(&with(3)).is_err());
        assert_eq!((Request::decode(&[0, 0]), Request::decode(&bytes)), (Ok(Request::Address), Ok(map)));
    }

    #[test]
    fn answers_are_read_as_the_rfc_writes_them() {
        let address = [0, 128, 0, 0, 0, 0, 1, 0, 203, 0, 113, 5];
        let mapped = [0, 129, 0, 0, 0, 0, 1, 0, 0x13, 0x88, 0xc3, 0x51, 0, 0, 0x0e, 0x10];
        let tcp = [0, 130, 0, 0, 0, 0, 1, 0, 0x13, 0x88, 0xc3, 0x51, 0, 0, 0x0e, 0x10];
        let said = |over| Said::Mapped { over, internal_port: 5000, external_port: 50_001, lifetime_s: 3600 };
        for (bytes, said) in [
            (&address[..], Said::Address(Ipv4Addr::new(203, 0, 113, 5))),
            (&mapped, said(Transport::Udp)),
            (&tcp, said(Transport::Tcp)),
            (&[0, 129, 0, 2, 0, 0, 1, 0], Said::Refused(2)),
        ] {
            let answer = Answer { epoch_s: 256, said };
            assert_eq!(Answer::decode(bytes), Ok(answer));
            assert_eq!(answer.encode(), bytes);
            for len in 0..bytes.len() {
                let cut = Answer::decode(&bytes[..len]);
                assert!(cut.is_err(), "{len} bytes are no answer: {cut:?}");
            }
        }
        // what a gateway without PCP says to a PCP request (RFC 6886 §3.5)
        let other = Answer { epoch_s: 256, said: Said::Refused(1) };
        assert_eq!(Answer::decode(&[0, 129, 0, 1, 0, 0, 1, 0]), Ok(other));
        assert!(Answer::decode(&[2, 129, 0, 1, 0, 0, 1, 0]).is_err(), "PCP is read elsewhere");
        assert!(
            Answer::decode(&[0, 131, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]).is_err(),
            "there is no such request"
        );
    }
}
