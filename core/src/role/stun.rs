//! The STUN server: tells a client the address that its datagrams come from (RFC 8489 Binding) and, with two addresses,
//! answers from another one on request (RFC 5780).
//!
//! It is no amplifier. A request with a forged source address gets at most: the attributes that the RFCs demand, at
//! most five times the shortest request; SOFTWARE and PADDING only as far as the answer stays no longer than its
//! request; one answer a request, to the source address (RESPONSE-PORT changes only the port); and a limited rate for
//! each network, whichever of its addresses is used. Behind a handshake (TCP) only the rate is limited.
//!
//! A client that asks over TCP may be dialled back, to learn whether its listening port can be reached: only at its own
//! address, which the handshake has proven; from an address that the client has not sent to; at a high port or that of
//! HTTPS; once a request, at the price of many answers. The client learns nothing but that the connection arrives.
//!
//! With the control plane's keys it gives cookies ([`crate::nat::cookie`]) to clients whose request has as many bytes.
//! They are sent over UDP to the source address only, so that nobody gets one for another client's address.

use crate::machine::{Cx, Machine, Time};
use crate::nat::cookie::{CookieKeys, Tag};
use crate::nat::is_private;
use crate::nat::stun::{Attribute, CHANGE_REQUEST, Class, HEADER_LEN, Message};
use crate::session::Wall;
use crate::wire::Wire as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

/// Event that the shell reports to the STUN machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A datagram, or a message on a stream, has arrived.
    Datagram {
        /// Source address of the request.
        from: SocketAddr,
        /// Server socket that it arrived on.
        local: SocketAddr,
        /// Payload, one STUN message.
        bytes: Vec<u8>,
    },
    /// Current time of the wall clock.
    WallClock {
        /// Time as Unix milliseconds.
        unix_ms: u64,
    },
    /// The control plane's keys for cookies; at the start and whenever they change.
    CookieKeys(CookieKeys),
}

/// Command of the machine to the shell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a datagram, or a message on the stream.
    Datagram {
        /// Server socket to send from.
        local: SocketAddr,
        /// Destination of the answer.
        to: SocketAddr,
        /// Payload, one STUN message.
        bytes: Vec<u8>,
    },
    /// Open a TCP connection, send `bytes` on it and close it. The time-out is so short that TCP does not repeat its
    /// first packet.
    DialBack {
        /// Server address to dial from.
        from: IpAddr,
        /// Client's address and port to dial.
        to: SocketAddr,
        /// Payload, one STUN indication.
        bytes: Vec<u8>,
    },
    /// Add one to a counter of the metrics.
    Count(Metric),
}

/// Counter in the metrics of a STUN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Binding requests answered with success.
    Answered,
    /// Requests refused with an error answer.
    Refused,
    /// Messages ignored: malformed, no request, or with too long an answer.
    Ignored,
    /// Requests dropped because their network sends too many.
    Limited,
    /// Clients dialled back over TCP.
    DialledBack,
}

impl Metric {
    /// Returns the counter's name for Prometheus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "swarmedge_stun_answered_total",
            Self::Refused => "swarmedge_stun_refused_total",
            Self::Ignored => "swarmedge_stun_ignored_total",
            Self::Limited => "swarmedge_stun_limited_total",
            Self::DialledBack => "swarmedge_stun_dialled_back_total",
        }
    }
}

/// The two addresses of a STUN server, and two ports that are open on both (RFC 5780).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The primary address and port.
    pub primary: SocketAddr,
    /// The alternate address and port; both differ from the primary ones.
    pub alternate: SocketAddr,
}

impl Addresses {
    /// Returns all four sockets, the primary first.
    #[must_use]
    pub const fn all(&self) -> [SocketAddr; 4] {
        let (a, b) = (self.primary, self.alternate);
        [a, SocketAddr::new(a.ip(), b.port()), SocketAddr::new(b.ip(), a.port()), b]
    }

    /// Returns the server's socket that differs from `local` in address, in port, or in both; `None` if `local` is
    /// none of the server's four sockets.
    fn exchanged(&self, local: SocketAddr, address: bool, port: bool) -> Option<SocketAddr> {
        let at = self.all().iter().position(|a| *a == local)?;
        Some(self.all()[at ^ (usize::from(address) << 1 | usize::from(port))])
    }
}

/// Limits of a STUN server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's four sockets; `None` if it has a single address.
    pub addresses: Option<Addresses>,
    /// Whether a TCP handshake has proven the source address of requests; then all answers go back on the stream.
    pub verified: bool,
    /// The server's two addresses; a client that asks at one may be dialled back from the other. `None`: it has only
    /// one.
    pub dials_from: Option<[IpAddr; 2]>,
    /// Maximum number of answers per second to each /24 network (IPv6: /56).
    pub answers_per_second: u32,
    /// Maximum number of networks whose rate is remembered.
    pub networks_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { addresses: None, verified: false, dials_from: None, answers_per_second: 1_000, networks_max: 65_536 }
    }
}

/// Tokens that one answer costs. In this unit a network gains `answers_per_second` tokens every microsecond.
const ANSWER: u64 = 1_000_000;
/// Cost of dialling a client back, in answers.
const DIAL_COST: u64 = 100;
/// Ports below this one are not dialled back, except that of HTTPS.
const LOW_PORTS: u16 = 1024;
/// Port of HTTPS, which may be dialled back too.
const HTTPS: u16 = 443;
/// Largest length of an answer to an unverified source, as a multiple of the shortest request.
const AMPLIFICATION_MAX: usize = 5;
/// Value of the SOFTWARE attribute in answers.
const SOFTWARE: &[u8] = b"swarmedge";
/// Bytes of an attribute's header.
const ATTRIBUTE_HEAD: usize = 4;

/// Error code of a refused request, and the attribute types that were not understood.
type Refusal = (u16, Vec<u16>);

/// STUN answer, with the socket it is sent from and its destination.
struct Answer {
    local: SocketAddr,
    to: SocketAddr,
    message: Message,
}

/// State machine of the STUN role: a token bucket for each client network. If there are too many, the one that has
/// been silent longest is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stun {
    networks: BTreeMap<IpAddr, Bucket>,
    by_age: BTreeSet<(Time, IpAddr)>,
    wall: Option<Wall>,
    cookies: CookieKeys,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Bucket {
    tokens: u64,
    seen: Time,
}

/// Returns the /24 (IPv6: /56) of an address.
fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & (u128::MAX << 72))),
    }
}

impl Stun {
    /// Returns the cookie that a request asks for; `None` if it asks for none or may not have one.
    fn cookie(&self, cx: &Cx<'_, Self>, request: &Message, from: SocketAddr) -> Option<Attribute> {
        let elsewhere = |a: &Attribute| matches!(a, Attribute::ResponsePort(_) | Attribute::ChangeRequest { .. });
        if cx.cfg.verified || request.attributes.iter().any(elsewhere) {
            return None;
        }
        let tag = Tag::read(request.cookie()?)?;
        let cookie = self.cookies.issue(self.wall?.at(cx.now), tag, from)?;
        Some(Attribute::Cookie(cookie.to_bytes()))
    }

    /// Dials back a client that asks for it, unless that could harm others.
    fn dial_back(&mut self, cx: &mut Cx<'_, Self>, request: &Message, (from, local): (SocketAddr, SocketAddr)) {
        let Some(port) = request.dial_back().filter(|_| cx.cfg.verified) else { return };
        let to = SocketAddr::new(from.ip().to_canonical(), if port == 0 { from.port() } else { port });
        let own = local.ip().to_canonical();
        let Some([a, b]) = cx.cfg.dials_from.filter(|both| both.contains(&own)) else { return };
        // addresses of a private network are dialled from that network only
        let proper = is_private(own) || !is_private(to.ip());
        if !proper || to.port() < LOW_PORTS && to.port() != HTTPS || !self.allow(cx.cfg, cx.now, from.ip(), DIAL_COST) {
            return;
        }
        let bytes = Message::new(Class::Indication, request.id, Vec::new()).encode();
        cx.push(Output::Count(Metric::DialledBack));
        cx.push(Output::DialBack { from: if own == a { b } else { a }, to, bytes });
    }

    /// Takes the tokens for `answers` answers from the bucket of the sender's network; returns `false` if it has too
    /// few.
    fn allow(&mut self, cfg: &Config, now: Time, from: IpAddr, answers: u64) -> bool {
        let network = network(from);
        let full = u64::from(cfg.answers_per_second) * ANSWER;
        let bucket = match self.networks.get(&network) {
            Some(b) => {
                self.by_age.remove(&(b.seen, network));
                let elapsed = u64::try_from(now.since(b.seen).as_micros()).unwrap_or(u64::MAX);
                let filled = elapsed.saturating_mul(u64::from(cfg.answers_per_second));
                Bucket { tokens: b.tokens.saturating_add(filled).min(full), seen: now }
            }
            None => {
                if self.networks.len() >= cfg.networks_max as usize && !self.forget_a_full_one(now) {
                    return false;
                }
                Bucket { tokens: full, seen: now }
            }
        };
        debug_assert!(bucket.tokens <= full, "a bucket holds no more than a second's answers");
        let allowed = bucket.tokens >= answers * ANSWER;
        let tokens = if allowed { bucket.tokens - answers * ANSWER } else { bucket.tokens };
        self.networks.insert(network, Bucket { tokens, seen: now });
        self.by_age.insert((now, network));
        debug_assert!(self.networks.len() <= cfg.networks_max as usize, "remembered networks are bounded");
        debug_assert!(self.by_age.len() == self.networks.len(), "each network is listed once by age");
        allowed
    }

    /// Forgets the network that has been silent longest, if its bucket is full again, so that nothing is lost;
    /// returns whether it did.
    fn forget_a_full_one(&mut self, now: Time) -> bool {
        let Some(&(seen, network)) = self.by_age.first() else { return false };
        let full = now.since(seen) >= Duration::from_secs(1);
        if full {
            self.by_age.remove(&(seen, network));
            self.networks.remove(&network);
        }
        full
    }
}

/// Returns the answer to a request (RFC 5780 §6.1), or the error to refuse it with.
fn answer(cfg: &Config, request: &Message, from: SocketAddr, local: SocketAddr) -> Result<Answer, Refusal> {
    if !request.unknown.is_empty() {
        return Err((420, request.unknown.clone()));
    }
    let change = request
        .find(|a| if let Attribute::ChangeRequest { address, port } = a { Some((*address, *port)) } else { None });
    let port = request.find(|a| if let Attribute::ResponsePort(port) = a { Some(*port) } else { None });
    let padded = request.find(|a| if let Attribute::Padding(len) = a { Some(*len) } else { None }).is_some();
    let (address, other_port) = change.unwrap_or_default();
    // a stream offers no other way to answer; both attributes together would aim long answers at another port
    let impossible = cfg.verified && (address || other_port || port.is_some());
    if impossible || padded && port.is_some() || port == Some(0) {
        return Err((400, Vec::new()));
    }
    let other = cfg.addresses.and_then(|a| a.exchanged(local, true, true));
    let origin = match cfg.addresses.and_then(|a| a.exchanged(local, address, other_port)) {
        Some(origin) => origin,
        None if address || other_port => return Err((420, alloc::vec![CHANGE_REQUEST])),
        None => local,
    };
    let mapped = SocketAddr::new(from.ip().to_canonical(), from.port());
    let mut attributes = alloc::vec![Attribute::XorMapped(mapped)];
    if !origin.ip().is_unspecified() {
        attributes.push(Attribute::ResponseOrigin(origin));
    }
    attributes.extend(other.map(Attribute::OtherAddress));
    let to = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
    Ok(Answer { local: origin, to, message: Message::new(Class::Success, request.id, attributes) })
}

fn refuse(request: &Message, (code, unknown): Refusal, from: SocketAddr, local: SocketAddr) -> Answer {
    let mut attributes = alloc::vec![Attribute::ErrorCode(code)];
    if !unknown.is_empty() {
        attributes.push(Attribute::UnknownAttributes(unknown));
    }
    Answer { local, to: from, message: Message::new(Class::Error, request.id, attributes) }
}

/// Adds the optional attributes SOFTWARE and PADDING, as far as the answer to an unverified source stays no longer
/// than its request.
fn fill(answer: &mut Message, request: &Message, verified: bool, request_len: usize) {
    let room = |answer: &Message| request_len.saturating_sub(answer.encode().len());
    if verified || room(answer) >= ATTRIBUTE_HEAD + SOFTWARE.len().next_multiple_of(4) {
        answer.attributes.push(Attribute::Software(SOFTWARE.to_vec()));
    }
    let asked = request.find(|a| if let Attribute::Padding(len) = a { Some(*len) } else { None });
    // padding fills whole words of four bytes
    let room = room(answer).saturating_sub(ATTRIBUTE_HEAD) & !3;
    if let Some(len) = asked.map(|len| len.min(u16::try_from(room).unwrap_or(u16::MAX))).filter(|len| *len > 0) {
        answer.attributes.push(Attribute::Padding(len));
    }
}

impl Machine for Stun {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        let (from, local, bytes) = match input {
            Input::Datagram { from, local, bytes } => (from, local, bytes),
            Input::WallClock { unix_ms } => return self.wall = Some(Wall::showing(unix_ms, cx.now)),
            Input::CookieKeys(keys) => return self.cookies = keys,
        };
        let request = Message::decode(&bytes).ok().filter(|m| m.class == Class::Request);
        let Some(request) = request else { return cx.push(Output::Count(Metric::Ignored)) };
        if !self.allow(cx.cfg, cx.now, from.ip(), 1) {
            return cx.push(Output::Count(Metric::Limited));
        }
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let (mut answer, metric) = match answer(cx.cfg, &request, from, local) {
            Ok(mut answer) => {
                answer.message.attributes.extend(self.cookie(cx, &request, from));
                (answer, Metric::Answered)
            }
            Err(refusal) => (refuse(&request, refusal, from, local), Metric::Refused),
        };
        fill(&mut answer.message, &request, cx.cfg.verified, bytes.len());
        let answer = (answer.local, answer.to, answer.message.encode());
        if !cx.cfg.verified && answer.2.len() > AMPLIFICATION_MAX * bytes.len().max(HEADER_LEN) {
            return cx.push(Output::Count(Metric::Ignored));
        }
        cx.push(Output::Count(metric));
        if metric == Metric::Answered {
            self.dial_back(cx, &request, (from, local));
        }
        cx.push(Output::Datagram { local: answer.0, to: answer.1, bytes: answer.2 });
    }

    fn handle_timeout(&mut self, _: &mut Cx<'_, Self>) {}

    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    fn rebase(&mut self, by: Duration) {
        self.networks.values_mut().for_each(|b| b.seen = b.seen.rebased(by));
        self.by_age = self.networks.iter().map(|(n, b)| (b.seen, *n)).collect();
    }

    fn check(&self) {
        assert!(self.by_age.len() == self.networks.len(), "each network is listed once by age");
        let listed = |(network, bucket): (&IpAddr, &Bucket)| self.by_age.contains(&(bucket.seen, *network));
        assert!(self.networks.iter().all(listed), "a network is listed under its last request");
        assert!(self.networks.keys().all(|n| network(*n) == *n), "a bucket is of a whole network");
    }
}

#[cfg(test)]
mod tests;
