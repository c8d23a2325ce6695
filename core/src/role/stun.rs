//! The STUN server: tells a client which address its datagrams come from (RFC 8489 Binding), at a bounded rate and never
//! with an answer that would make it an amplifier.

use alloc::vec::Vec;
use core::net::SocketAddr;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A datagram came.
    Datagram {
        /// From whom.
        from: SocketAddr,
        /// To which of the server's sockets.
        local: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// From this of the server's sockets.
        local: SocketAddr,
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Add one to a counter.
    Count(Metric),
}

/// What a STUN server counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// A binding request was answered.
    Answered,
    /// A request was refused with an error answer.
    Refused,
    /// A datagram was none of ours, or malformed.
    Ignored,
    /// A request was dropped: its network sends too many.
    Limited,
}

impl Metric {
    /// The counter's name, as Prometheus wants it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "swarmedge_stun_answered_total",
            Self::Refused => "swarmedge_stun_refused_total",
            Self::Ignored => "swarmedge_stun_ignored_total",
            Self::Limited => "swarmedge_stun_limited_total",
        }
    }
}

/// Limits of a STUN server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Answers a second for each /24 (IPv6: /56).
    pub answers_per_second: u32,
    /// Networks remembered at a time.
    pub networks_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { answers_per_second: 1_000, networks_max: 65_536 }
    }
}
