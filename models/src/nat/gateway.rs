//! Port-mapping daemon on a simulated router: answers PCP, NAT-PMP and UPnP, and makes the router forward ports.

use super::router::Router;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;
use swarmedge_core::machine::Time;
use swarmedge_core::nat::mapping::io::{IgdAsk, IgdError, Opened, Protocol};
use swarmedge_core::nat::mapping::{natpmp, pcp};

/// Truthfulness of a gateway daemon: its answers, and whether it forwards what it grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    /// The gateway forwards each port that it grants.
    Honest,
    /// The gateway forwards each port that it grants, but never grants the requested one.
    GivesAnother,
    /// The gateway grants ports, but does not forward them.
    Lies,
    /// The gateway refuses every request with this result code.
    Refuses(u8),
}

/// Port mapping that a daemon offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offers {
    /// Protocol that the daemon speaks.
    pub protocol: Protocol,
    /// Truthfulness of the daemon's answers.
    pub truth: Truth,
    /// Maximum lifetime of a mapping, in seconds.
    pub lifetime_s: u32,
}

/// Simulated port-mapping daemon (gateway) of a router.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Protocols and behaviour of the daemon.
    pub offers: Offers,
    /// Time of the daemon's last start; `before` is the uptime that it had at the world's time zero.
    since: Time,
    before: Duration,
}

impl Gateway {
    /// Returns a daemon that starts at `now`.
    #[must_use]
    pub const fn new(offers: Offers, now: Time) -> Self {
        Self { offers, since: now, before: Duration::ZERO }
    }

    /// Restarts the daemon and its router.
    pub fn reboot(&mut self, now: Time, router: &mut Router) {
        (self.since, self.before) = (now, Duration::ZERO);
        router.reset(None);
    }

    fn epoch_s(&self, now: Time) -> u32 {
        u32::try_from((now.since(self.since) + self.before).as_secs()).unwrap_or(u32::MAX)
    }

    /// Returns the datagram that announces a restart; `None` for UPnP, which has none.
    #[must_use]
    pub fn announcement(&self, now: Time, router: &Router) -> Option<Vec<u8>> {
        let epoch_s = self.epoch_s(now);
        match self.offers.protocol {
            Protocol::Pcp => Some(pcp::Answer::Announced { epoch_s }.encode()),
            Protocol::NatPmp => Some(natpmp::Answer { epoch_s, said: natpmp::Said::Address(outer(router)) }.encode()),
            Protocol::Upnp => None,
        }
    }

    /// Handles a datagram to the daemon's port; returns its answer, if any.
    pub fn datagram(&self, now: Time, router: &mut Router, from: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
        match (bytes.first()?, self.offers.protocol) {
            (&pcp::VERSION, Protocol::Pcp) => self.pcp(now, router, pcp::decode_request(bytes).ok()?),
            // RFC 6887 appendix A
            (&pcp::VERSION, Protocol::NatPmp) => {
                let said = natpmp::Said::Refused(u16::from(pcp::UNSUPPORTED_VERSION));
                Some(natpmp::Answer { epoch_s: self.epoch_s(now), said }.encode())
            }
            (&natpmp::VERSION, Protocol::NatPmp) => {
                let said = self.natpmp(now, router, from, natpmp::Request::decode(bytes).ok()?);
                Some(natpmp::Answer { epoch_s: self.epoch_s(now), said }.encode())
            }
            _ => None,
        }
    }

    fn pcp(&self, now: Time, router: &mut Router, request: pcp::MapRequest) -> Option<Vec<u8>> {
        let pcp::MapRequest { nonce, over, internal, external, lifetime_s } = request;
        if let Truth::Refuses(code) = self.offers.truth {
            let refused = pcp::Answer::Refused { code, version: pcp::VERSION, nonce: Some(nonce), wait_s: 30 };
            return Some(refused.encode());
        }
        let lifetime_s = lifetime_s.min(self.offers.lifetime_s);
        let port = self.forward(now, router, internal.into(), external.port(), lifetime_s);
        let external = SocketAddrV4::new(outer(router), port);
        let epoch_s = self.epoch_s(now);
        let mapped = pcp::Mapped { nonce, over, internal_port: internal.port(), external, lifetime_s, epoch_s };
        Some(pcp::Answer::Mapped(mapped).encode())
    }

    /// Returns the gateway's answer to a NAT-PMP request.
    fn natpmp(&self, now: Time, router: &mut Router, from: SocketAddr, request: natpmp::Request) -> natpmp::Said {
        match (request, self.offers.truth) {
            (_, Truth::Refuses(code)) => natpmp::Said::Refused(code.into()),
            (natpmp::Request::Address, _) => natpmp::Said::Address(outer(router)),
            (natpmp::Request::Map { over, internal_port, external_port, lifetime_s }, _) => {
                let lifetime_s = lifetime_s.min(self.offers.lifetime_s);
                let inner = SocketAddr::new(from.ip(), internal_port);
                let external_port = self.forward(now, router, inner, external_port, lifetime_s);
                natpmp::Said::Mapped { over, internal_port, external_port, lifetime_s }
            }
        }
    }

    /// Handles a UPnP request; returns the port that the daemon says it has opened.
    pub fn igd(&self, now: Time, router: &mut Router, ask: IgdAsk) -> Result<Opened, IgdError> {
        match (self.offers.protocol, self.offers.truth, ask) {
            (Protocol::Pcp | Protocol::NatPmp, _, _) => Err(IgdError::NoAnswer),
            (_, Truth::Refuses(code), _) => Err(IgdError::Refused(code.into())),
            (_, _, IgdAsk::Open { site, port, lifetime_s, .. }) => {
                let lifetime_s = lifetime_s.min(self.offers.lifetime_s);
                let port = self.forward(now, router, site.local.into(), port, lifetime_s);
                Ok(Opened { external: SocketAddrV4::new(outer(router), port), lifetime_s })
            }
            (_, _, IgdAsk::Close { port, .. }) => {
                router.forward(port, None);
                Err(IgdError::NoAnswer)
            }
        }
    }

    /// Makes the router forward a port, the requested one if it is free; returns the port.
    fn forward(&self, now: Time, router: &mut Router, inner: SocketAddr, wish: u16, lifetime_s: u32) -> u16 {
        if self.offers.truth == Truth::Lies {
            return wish;
        }
        if lifetime_s == 0 {
            router.forward_none(inner);
            return 0;
        }
        let mut port = wish.max(1024);
        if self.offers.truth == Truth::GivesAnother && router.forwards(now, port) != Some(inner) {
            port = port.checked_add(1).unwrap_or(1024);
        }
        while router.forwards(now, port).is_some_and(|i| i != inner) {
            port = port.checked_add(1).unwrap_or(1024);
        }
        router.forward(port, Some((inner, now.after(Duration::from_secs(lifetime_s.into())))));
        port
    }

    /// Moves all times in the daemon back by `by`.
    pub fn rebase(&mut self, by: Duration) {
        self.before += by.saturating_sub(self.since.since(Time::ZERO));
        self.since = self.since.rebased(by);
    }
}

/// Returns the router's external IPv4 address.
fn outer(router: &Router) -> Ipv4Addr {
    match router.outer {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}
