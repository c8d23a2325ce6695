//! Port mapping: a gateway (router) forwards one of its own ports to the QUIC socket, so that any host can send to
//! it, even if the gateway is a symmetric NAT and the sender is behind one too. PCP (RFC 6887) is tried first, then
//! NAT-PMP (RFC 6886), then UPnP.
//!
//! A gateway's claim is not trusted: its external address must be the one that STUN servers see, and a STUN server
//! must have reached the port from an address to which this host sent nothing (`check.rs`). Only such a port is
//! advertised to peers, and it is tested periodically. A second state machine does the same for a listening TCP port,
//! except for the test from outside, which discovery makes.

mod answers;
mod check;
mod closing;
mod invariants;
pub mod io;
pub mod natpmp;
pub mod pcp;
#[cfg(test)]
mod tests;

use crate::machine::{Cx, Machine, Rng, Time};
use crate::nat::Transport;
use crate::nat::discovery::io::{Sight, Socket};
use alloc::collections::BTreeSet;
use check::Check;
use core::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use core::time::Duration;
use io::{Config, Effect, IgdAsk, Input, Output, Protocol, Site, Status, Why};

/// UDP port on which gateways listen (RFC 6887 §19, RFC 6886 §3.1).
pub const PORT: u16 = 5351;
/// Bit set in the numbers of UPnP requests for a listening TCP port, to distinguish them from those for the QUIC
/// socket.
pub(in crate::nat) const TCP_ID: u32 = 1 << 31;
/// First dynamic port and number of dynamic ports (RFC 6335 §6).
const PORTS: (u16, u16) = (49_152, 16_384);
/// Maximum number of random draws of an external port at which the socket was not seen.
const DRAWS_MAX: u32 = 8;
/// Maximum number of times that another port is opened because the present one cannot be tested from outside.
const REDRAWS_MAX: u8 = 2;
/// Minimum useful lifetime of a mapping in seconds, and the maximum to which longer ones are cut (RFC 6887 §15, §19).
const LIFETIME_S: (u32, u32) = (60, 24 * 3600);
/// Minimum interval between renewals of a mapping (RFC 6887 §11.2.1).
const RENEW_MIN: Duration = Duration::from_secs(4);
/// Maximum time for which a gateway can delay the next attempt.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// State machine that keeps one local port forwarded by the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mapping {
    site: Option<Site>,
    sight: Option<Sight>,
    nonce: pcp::Nonce,
    ask: Option<Ask>,
    lease: Option<Lease>,
    check: Option<Check>,
    /// Time of the next request: a renewal, or a new attempt.
    next: Option<Time>,
    /// Time of the next test of an open port.
    recheck: Option<Time>,
    epoch: Option<Epoch>,
    /// Reason why no port is open, as far as known.
    why: Option<Why>,
    next_id: u32,
    /// Protocols whose datagrams were sent to this gateway.
    asked: BTreeSet<Protocol>,
    /// Number, gateway and local port of the last UPnP request to open a port.
    opening: Option<(u32, Site)>,
    /// Number of the last UPnP request to close a port, or of the request to open one that is to be closed as soon as
    /// it has ended.
    closing: Option<u32>,
    /// Time at which an announced restart of the gateway was last acted on.
    heeded: Option<Time>,
    redraws: u8,
    told: Status,
    claimed: Option<SocketAddrV4>,
    forwarded: Option<SocketAddrV4>,
}

/// State of the pending request to open or renew a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ask {
    protocol: Protocol,
    /// Whether the request renews an open mapping.
    renewal: bool,
    port: u16,
    sent: u32,
    /// Time of the protocol's first request, from which the granted lifetime is counted.
    began: Time,
    due: Time,
    /// Deadline of the attempt over all protocols, or the end of the mapping that is being renewed.
    ends: Time,
    /// External address, the first part of NAT-PMP's answer.
    address: Option<Ipv4Addr>,
    mapped: Option<(u16, u32)>,
    /// Number of the UPnP request.
    id: u32,
    /// Minimum delay, set by the gateway, before the next request.
    wait: Duration,
}

/// Port that the gateway says it has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lease {
    protocol: Protocol,
    external: SocketAddrV4,
    lifetime_s: u32,
    ends: Time,
    /// Whether a STUN server has reached the port from outside.
    verified: bool,
}

/// Gateway's count of the seconds since its mapping table was last reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Epoch {
    server: Duration,
    at: Time,
}

impl Epoch {
    /// Returns whether the count `server_s`, received at `now`, does not continue this one, so that the gateway has
    /// lost its mappings (RFC 6887 §8.5, also used for NAT-PMP).
    fn is_broken_by(self, now: Time, server_s: u32) -> bool {
        let (before, server) = (self.server.as_secs(), u64::from(server_s));
        let there = server.saturating_sub(before);
        let here = now.since(self.at).as_secs();
        server + 1 < before || here + 2 < there - there / 16 || there + 2 < here - here / 16
    }
}

type Context<'a> = Cx<'a, Mapping>;

/// Returns a random number, drawn such that the model checker need not explore every value.
fn number(rng: &mut dyn Rng) -> u16 {
    rng.nonce().chunks_exact(2).fold(0, |n, pair| n ^ u16::from_be_bytes([pair[0], pair[1]]))
}

const fn numbered(id: u32, site: Site) -> u32 {
    match site.over {
        Transport::Udp => id,
        Transport::Tcp => id | TCP_ID,
    }
}

impl Mapping {
    /// Returns the external address and port to be advertised to peers: open, and tested from outside.
    #[must_use]
    pub fn claimed(&self) -> Option<SocketAddrV4> {
        self.lease.filter(|l| l.verified).map(|l| l.external)
    }

    /// Returns the gateway and the local port for which a port is forwarded; `None` without a gateway.
    #[must_use]
    pub const fn site(&self) -> Option<Site> {
        self.site
    }

    fn over(&self) -> Transport {
        self.site.map_or(Transport::Udp, |s| s.over)
    }

    /// Returns the external address and port that the gateway says it forwards to a listening TCP port, not tested
    /// from outside.
    fn forwards(&self) -> Option<SocketAddrV4> {
        self.lease.filter(|_| self.over() == Transport::Tcp).map(|l| l.external)
    }

    /// Returns whether a UPnP request to close a port is still pending.
    #[must_use]
    pub const fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns the status of port mapping.
    #[must_use]
    pub fn status(&self, cfg: &Config) -> Status {
        let wanted = self.sight.as_ref().is_some_and(|s| s.translated);
        match (self.lease, self.why) {
            _ if !cfg.enabled => Status::Off,
            _ if !wanted => Status::Unneeded,
            _ if self.site.is_none() => Status::NoGateway,
            (Some(Lease { protocol, external, lifetime_s, verified: true, .. }), _) => {
                Status::Open { protocol, external, lifetime_s }
            }
            (_, Some(why)) if self.ask.as_ref().is_none_or(|a| a.renewal) => Status::Failed(why),
            _ => Status::Busy,
        }
    }

    fn is_wanted(&self, cfg: &Config) -> bool {
        cfg.enabled && self.site.is_some() && self.sight.as_ref().is_some_and(|s| s.translated)
    }

    // --- asking ---------------------------------------------------------------------------------------------------

    /// Begins an attempt to open a port, with the first protocol, PCP; does nothing if none is needed.
    fn begin(&mut self, cx: &mut Context<'_>) {
        let before = self.lease.take().map(|l| l.external.port());
        (self.check, self.recheck, self.next) = (None, None, None);
        if !self.is_wanted(cx.cfg) {
            self.ask = None;
            return;
        }
        // what was opened before is opened again rather than left behind
        let port = before.filter(|port| !self.is_seen_at(*port)).unwrap_or_else(|| self.draw(cx.rng));
        self.ask = Some(Ask {
            protocol: Protocol::Pcp,
            renewal: false,
            port,
            sent: 0,
            began: cx.now,
            due: cx.now,
            ends: cx.now.after(cx.cfg.within),
            address: None,
            mapped: None,
            id: 0,
            wait: Duration::ZERO,
        });
        self.why = None;
        self.transmit(cx);
    }

    /// Begins to renew the open mapping, by the protocol that opened it.
    fn renew(&mut self, cx: &mut Context<'_>) {
        let Some(lease) = self.lease.filter(|_| self.ask.is_none()) else { return };
        self.next = None;
        self.ask = Some(Ask {
            protocol: lease.protocol,
            renewal: true,
            port: lease.external.port(),
            sent: 0,
            began: cx.now,
            due: cx.now,
            ends: lease.ends,
            address: None,
            mapped: None,
            id: 0,
            wait: Duration::ZERO,
        });
        self.transmit(cx);
    }

    /// Draws a random external port at which STUN servers did not see the socket, so that packets to it can arrive
    /// only by port mapping.
    fn draw(&self, rng: &mut dyn Rng) -> u16 {
        let mut port = PORTS.0;
        for _ in 0..DRAWS_MAX {
            port = PORTS.0 + number(rng) % PORTS.1;
            if !self.is_seen_at(port) {
                break;
            }
        }
        port
    }

    fn is_seen_at(&self, port: u16) -> bool {
        self.sight.as_ref().is_some_and(|s| s.ports.contains(&port))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) {
        let (Some(site), Some(ask)) = (self.site, &mut self.ask) else {
            // a request ends with the gateway
            return debug_assert!(false, "a request is sent to a gateway");
        };
        let lifetime_s = u32::try_from(cx.cfg.lifetime.as_secs()).unwrap_or(u32::MAX);
        ask.due = cx.now.after(cx.cfg.rto * (1 << ask.sent.min(8))).min(ask.ends);
        ask.sent += 1;
        if ask.protocol != Protocol::Upnp {
            self.asked.insert(ask.protocol);
        }
        let to = SocketAddr::new(site.gateway.into(), PORT);
        let (over, socket) = (site.over, site.socket());
        let mut send = |bytes| cx.out.push(Output::Effect(Effect::Send { socket, to, bytes }));
        match ask.protocol {
            Protocol::Pcp => {
                let ip = self.lease.map_or(Ipv4Addr::UNSPECIFIED, |l| *l.external.ip());
                let external = SocketAddrV4::new(ip, ask.port);
                send(pcp::MapRequest { nonce: self.nonce, over, internal: site.local, external, lifetime_s }.encode());
            }
            Protocol::NatPmp => {
                if ask.address.is_none() {
                    send(natpmp::Request::Address.encode());
                }
                let internal_port = site.local.port();
                if ask.mapped.is_none() {
                    let external_port = ask.port;
                    send(natpmp::Request::Map { over, internal_port, external_port, lifetime_s }.encode());
                }
            }
            Protocol::Upnp => {
                self.next_id += 1;
                (ask.id, ask.due) = (numbered(self.next_id, site), ask.ends);
                self.opening = Some((ask.id, site));
                // a renewal has time, and an effect has an end all the same
                let within = ask.ends.since(cx.now).min(cx.cfg.within);
                let open = IgdAsk::Open { site, port: ask.port, lifetime_s, within };
                cx.push(Output::Effect(Effect::Igd { id: ask.id, ask: open }));
            }
        }
    }

    fn ask_due(&mut self, cx: &mut Context<'_>) {
        let Some(ask) = &self.ask else { return };
        let tries = match (ask.protocol, ask.renewal) {
            (Protocol::Upnp, _) => 1,
            (_, false) => cx.cfg.tries,
            (_, true) => cx.cfg.renew_tries,
        };
        if ask.sent < tries && cx.now < ask.ends { self.transmit(cx) } else { self.go_on(cx, None) }
    }

    /// Ends the requests by the present protocol and continues with the next one. `refused`: the gateway's error
    /// code, if any.
    fn go_on(&mut self, cx: &mut Context<'_>, refused: Option<u16>) {
        let Some(mut ask) = self.ask.take() else { return };
        if let Some(code) = refused {
            self.why = self.why.or(Some(Why::Refused { protocol: ask.protocol, code }));
        }
        let left = self.lease.map_or(Duration::ZERO, |l| l.ends.since(cx.now));
        if ask.renewal {
            // at half of what is left each time; what runs out is asked for anew
            self.next = Some(cx.now.after((left / 2).max(RENEW_MIN).max(ask.wait)));
            return;
        }
        ask.protocol = match ask.protocol {
            Protocol::Pcp => Protocol::NatPmp,
            // UPnP asks the gateway for web pages: only one of a home's own network is
            Protocol::NatPmp if self.site.is_some_and(|s| crate::nat::is_private(s.gateway.into())) => Protocol::Upnp,
            Protocol::NatPmp | Protocol::Upnp => return self.give_up(cx, Why::NoAnswer, ask.wait),
        };
        if cx.now >= ask.ends {
            return self.give_up(cx, Why::NoAnswer, ask.wait);
        }
        (ask.sent, ask.began) = (0, cx.now);
        self.ask = Some(ask);
        self.transmit(cx);
    }

    /// Ends the attempt to open a port as failed, and schedules another one after at least `wait`.
    fn give_up(&mut self, cx: &Context<'_>, why: Why, wait: Duration) {
        (self.lease, self.ask, self.check, self.recheck) = (None, None, None, None);
        self.why = self.why.or(Some(why));
        self.next = Some(cx.now.after(cx.cfg.again.max(wait)));
    }

    // --- events ---------------------------------------------------------------------------------------------------

    fn set_site(&mut self, cx: &mut Context<'_>, site: Option<Site>) {
        if site == self.site {
            return;
        }
        // what the last gateway has opened leads nowhere any more, and it cannot be told
        let Self { next_id, closing, told, claimed, forwarded, .. } = *self;
        *self = Self { site, next_id, closing, told, claimed, forwarded, ..Self::default() };
        self.nonce.0.copy_from_slice(&cx.rng.nonce()[..12]);
    }

    fn seen(&mut self, cx: &mut Context<'_>, sight: Sight) {
        let before = self.sight.replace(sight.clone());
        let Some(before) = before.filter(|b| b.translated == sight.translated) else { return self.begin(cx) };
        if before.mapped.ip() != sight.mapped.ip() {
            // another address of the gateway's
            return self.begin(cx);
        }
        if before.server == sight.server && before.mapped != sight.mapped {
            // the gateway has forgotten flows: perhaps more than those
            self.renew(cx);
        }
    }

    /// Reports changes of the advertised port, the forwarded TCP port and the status since the last report.
    fn tell(&mut self, cx: &mut Context<'_>) {
        if self.claimed() != self.claimed {
            self.claimed = self.claimed();
            cx.push(Output::Claimed(self.claimed));
        }
        if self.forwards() != self.forwarded {
            self.forwarded = self.forwards();
            cx.push(Output::Forwards(self.forwarded));
        }
        let status = self.status(cx.cfg);
        if status != self.told {
            self.told = status;
            cx.push(Output::Status(status));
        }
        if cfg!(debug_assertions) {
            self.check_all();
        }
    }
}

impl Machine for Mapping {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Site(site) => self.set_site(cx, site),
            Input::Seen(sight) => self.seen(cx, sight),
            Input::Datagram { socket: Socket::Main, from, bytes } => {
                self.witness_says(cx, SocketAddr::new(from.ip().to_canonical(), from.port()), &bytes);
            }
            Input::Datagram { socket: socket @ (Socket::Gateway | Socket::TcpGateway), from, bytes } => {
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                let of = |s: Site| s.socket() == socket && from == SocketAddr::new(s.gateway.into(), PORT);
                if self.site.is_some_and(of) {
                    self.gateway_says(cx, &bytes);
                }
            }
            Input::Datagram { socket: Socket::Silent | Socket::Asker, .. } => {}
            Input::Igd(end) => self.igd(cx, end),
            Input::Shutdown => self.leave(cx),
        }
        self.tell(cx);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if cx.is_due(self.lease.map(|l| l.ends)) {
            self.begin(cx);
        }
        if cx.is_due(self.ask.as_ref().map(|a| a.due)) {
            self.ask_due(cx);
        }
        if cx.is_due(self.check.as_ref().map(|c| c.due)) {
            self.check_due(cx);
        }
        if cx.is_due(self.recheck) {
            self.begin_check(cx);
        }
        if cx.is_due(self.next) {
            if self.lease.is_some() { self.renew(cx) } else { self.begin(cx) }
        }
        self.tell(cx);
    }

    fn poll_timeout(&self) -> Option<Time> {
        let ask = self.ask.as_ref().map(|a| a.due);
        let check = self.check.as_ref().map(|c| c.due);
        [ask, check, self.lease.map(|l| l.ends), self.next, self.recheck].into_iter().flatten().min()
    }

    fn rebase(&mut self, by: Duration) {
        let shift = |at: &mut Time| *at = at.rebased(by);
        [&mut self.next, &mut self.recheck, &mut self.heeded].into_iter().flatten().for_each(shift);
        self.lease.iter_mut().for_each(|l| shift(&mut l.ends));
        self.ask.iter_mut().for_each(|a| {
            [&mut a.began, &mut a.due, &mut a.ends].into_iter().for_each(shift);
        });
        self.check.iter_mut().for_each(|c| shift(&mut c.due));
        if let Some(epoch) = &mut self.epoch {
            // what lies before the start of time is counted as gone by already
            epoch.server += by.saturating_sub(epoch.at.since(Time::ZERO));
            shift(&mut epoch.at);
        }
    }

    fn check(&self) {
        self.check_all();
    }
}
