//! The STUN server: tells a client which address its datagrams come from (RFC 8489 Binding) and, with two addresses,
//! answers from another one when asked (RFC 5780).
//!
//! It is no amplifier. Whoever forges a source address gets at most: the attributes that the RFCs demand, at most five
//! times the shortest request; SOFTWARE and PADDING only as far as the answer stays no longer than its request; one
//! answer a request, to the address that asks (RESPONSE-PORT changes the port alone); and a bounded rate for each
//! network, whichever of its addresses is named. Behind a handshake (TCP) only the rate is bounded.
//!
//! Who asks over TCP may be dialled back, to see whether his listening port is reached: at his own address, which the
//! handshake has proven, and no other; from an address that he has not written to; at a high port or that of HTTPS;
//! once a request, at the price of many answers. He is told nothing by it but what reaches him.
//!
//! With the control plane's keys it gives cookies ([`crate::nat::cookie`]) to who asks for them with as many bytes,
//! over UDP, and to the endpoint that asks, so that nobody gets one for where he is not.

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

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A datagram came, or a message on a stream.
    Datagram {
        /// From whom.
        from: SocketAddr,
        /// To which of the server's sockets.
        local: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// The time of day.
    WallClock {
        /// Unix milliseconds.
        unix_ms: u64,
    },
    /// The control plane's keys for cookies, at first and whenever they change.
    CookieKeys(CookieKeys),
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
    /// Open a TCP connection, for so short a time that its first packet is not repeated; send this and close it.
    DialBack {
        /// From this address of the server.
        from: IpAddr,
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
    /// A client was dialled back.
    DialledBack,
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
            Self::DialledBack => "swarmedge_stun_dialled_back_total",
        }
    }
}

/// Two addresses, and two ports that are open on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// The primary address and port.
    pub primary: SocketAddr,
    /// The alternate address and port; both differ from the primary ones.
    pub alternate: SocketAddr,
}

impl Addresses {
    /// All four, the primary first.
    #[must_use]
    pub const fn all(&self) -> [SocketAddr; 4] {
        let (a, b) = (self.primary, self.alternate);
        [a, SocketAddr::new(a.ip(), b.port()), SocketAddr::new(b.ip(), a.port()), b]
    }

    /// What `local` becomes with its address, its port, or both exchanged; `None` if it is none of the four.
    fn exchanged(&self, local: SocketAddr, address: bool, port: bool) -> Option<SocketAddr> {
        let at = self.all().iter().position(|a| *a == local)?;
        Some(self.all()[at ^ (usize::from(address) << 1 | usize::from(port))])
    }
}

/// Limits of a STUN server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it can answer from, if it has two addresses.
    pub addresses: Option<Addresses>,
    /// A handshake has shown that requests come from where they say (TCP); then nothing is answered from elsewhere.
    pub verified: bool,
    /// The server's addresses, if it has two: who asks one of them may be dialled back from the other.
    pub dials_from: Option<[IpAddr; 2]>,
    /// Answers a second for each /24 (IPv6: /56).
    pub answers_per_second: u32,
    /// Networks remembered at a time.
    pub networks_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { addresses: None, verified: false, dials_from: None, answers_per_second: 1_000, networks_max: 65_536 }
    }
}

/// One answer, in the unit that buckets count in: a rate in answers a second fills by itself every microsecond.
const ANSWER: u64 = 1_000_000;
/// Dialling back costs as much as so many answers.
const DIAL_COST: u64 = 100;
/// Below it is no port of a client, but for one.
const LOW_PORTS: u16 = 1024;
/// That of HTTPS.
const HTTPS: u16 = 443;
/// No answer to an unverified source is longer than this many of the shortest request.
const AMPLIFICATION_MAX: usize = 5;
/// What we are, in answers.
const SOFTWARE: &[u8] = b"swarmedge";
/// Bytes of an attribute's head.
const ATTRIBUTE_HEAD: usize = 4;

/// Refused: the error code, and what was not understood.
type Refusal = (u16, Vec<u16>);

/// An answer with where it goes from and to.
struct Answer {
    local: SocketAddr,
    to: SocketAddr,
    message: Message,
}

/// The STUN server: a token bucket for each network that asks, the longest silent forgotten first.
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

/// The /24 (IPv6: /56) of an address.
fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & (u32::MAX << 8))),
        IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & (u128::MAX << 72))),
    }
}

impl Stun {
    /// The cookie that a request asks for, if it may have one.
    fn cookie(&self, cx: &Cx<'_, Self>, request: &Message, from: SocketAddr) -> Option<Attribute> {
        let elsewhere = |a: &Attribute| matches!(a, Attribute::ResponsePort(_) | Attribute::ChangeRequest { .. });
        if cx.cfg.verified || request.attributes.iter().any(elsewhere) {
            return None;
        }
        let tag = Tag::read(request.cookie()?)?;
        let cookie = self.cookies.issue(self.wall?.at(cx.now), tag, from)?;
        Some(Attribute::Cookie(cookie.to_bytes()))
    }

    /// Dials back who asks for it, if that harms nobody.
    fn dial_back(&mut self, cx: &mut Cx<'_, Self>, request: &Message, (from, local): (SocketAddr, SocketAddr)) {
        let Some(port) = request.dial_back().filter(|_| cx.cfg.verified) else { return };
        let to = SocketAddr::new(from.ip().to_canonical(), if port == 0 { from.port() } else { port });
        let own = local.ip().to_canonical();
        let Some([a, b]) = cx.cfg.dials_from.filter(|both| both.contains(&own)) else { return };
        // a private network's are dialled on that network only
        let proper = is_private(own) || !is_private(to.ip());
        if !proper || to.port() < LOW_PORTS && to.port() != HTTPS || !self.allow(cx.cfg, cx.now, from.ip(), DIAL_COST) {
            return;
        }
        let bytes = Message::new(Class::Indication, request.id, Vec::new()).encode();
        cx.push(Output::Count(Metric::DialledBack));
        cx.push(Output::DialBack { from: if own == a { b } else { a }, to, bytes });
    }

    /// Takes so many answers from the network's bucket, if they are there.
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
        let allowed = bucket.tokens >= answers * ANSWER;
        let tokens = if allowed { bucket.tokens - answers * ANSWER } else { bucket.tokens };
        self.networks.insert(network, Bucket { tokens, seen: now });
        self.by_age.insert((now, network));
        allowed
    }

    /// Forgets the network that has been silent longest, if its bucket has filled up since: then nothing is lost.
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

/// The answer to a request (RFC 5780 §6.1), or why there is none.
fn answer(cfg: &Config, request: &Message, from: SocketAddr, local: SocketAddr) -> Result<Answer, Refusal> {
    if !request.unknown.is_empty() {
        return Err((420, request.unknown.clone()));
    }
    let change = request
        .find(|a| if let Attribute::ChangeRequest { address, port } = a { Some((*address, *port)) } else { None });
    let port = request.find(|a| if let Attribute::ResponsePort(port) = a { Some(*port) } else { None });
    let padded = request.find(|a| if let Attribute::Padding(len) = a { Some(*len) } else { None }).is_some();
    let (address, other_port) = change.unwrap_or_default();
    // on a stream there is no other way to answer, and both attributes together would aim long answers elsewhere
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

/// Adds what is welcome and not needed, as far as an answer to an unverified source stays no longer than its request.
fn fill(answer: &mut Message, request: &Message, verified: bool, request_len: usize) {
    let room = |answer: &Message| request_len.saturating_sub(answer.encode().len());
    if verified || room(answer) >= ATTRIBUTE_HEAD + SOFTWARE.len().next_multiple_of(4) {
        answer.attributes.push(Attribute::Software(SOFTWARE.to_vec()));
    }
    let asked = request.find(|a| if let Attribute::Padding(len) = a { Some(*len) } else { None });
    // padding fills whole words
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
}

#[cfg(test)]
mod tests;
