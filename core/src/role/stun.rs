//! The STUN server: tells a client which address its datagrams come from (RFC 8489 Binding), at a bounded rate and
//! never with an answer that would make it an amplifier.

use crate::machine::{Cx, Machine, Time};
use crate::nat::stun::{HEADER_LEN, Message};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

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

/// One answer, in the unit that buckets count in: a rate in answers a second fills by itself every microsecond.
const ANSWER: u64 = 1_000_000;
/// No answer is longer than this many of the shortest request.
const AMPLIFICATION_MAX: usize = 5;

/// The STUN server: a token bucket for each network that asks, the longest silent forgotten first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stun {
    networks: BTreeMap<IpAddr, Bucket>,
    by_age: BTreeSet<(Time, IpAddr)>,
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
    /// Takes one answer from the network's bucket, if there is one.
    fn allow(&mut self, cfg: &Config, now: Time, from: IpAddr) -> bool {
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
        let allowed = bucket.tokens >= ANSWER;
        let tokens = if allowed { bucket.tokens - ANSWER } else { bucket.tokens };
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

impl Machine for Stun {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        let Input::Datagram { from, local, bytes } = input;
        let Ok(Message::Request { id, unknown }) = Message::decode(&bytes) else {
            return cx.push(Output::Count(Metric::Ignored));
        };
        if !self.allow(cx.cfg, cx.now, from.ip()) {
            return cx.push(Output::Count(Metric::Limited));
        }
        let (answer, metric) = if unknown.is_empty() {
            let mapped = SocketAddr::new(from.ip().to_canonical(), from.port());
            (Message::Success { id, mapped }, Metric::Answered)
        } else {
            (Message::Error { id, code: 420, unknown }, Metric::Refused)
        };
        let answer = answer.encode();
        if answer.len() > AMPLIFICATION_MAX * bytes.len().max(HEADER_LEN) {
            return cx.push(Output::Count(Metric::Ignored));
        }
        cx.push(Output::Count(metric));
        cx.push(Output::Datagram { local, to: from, bytes: answer });
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
mod tests {
    use super::*;
    use crate::machine::Rng;
    use crate::nat::stun::TransactionId;
    use alloc::vec;

    struct NoRng;
    impl Rng for NoRng {
        fn below(&mut self, _: u32) -> u32 {
            unreachable!("a STUN server draws nothing")
        }
        fn nonce(&mut self) -> [u8; 16] {
            unreachable!("a STUN server draws nothing")
        }
    }

    fn ask(stun: &mut Stun, cfg: &Config, now: Time, from: &str, bytes: Vec<u8>) -> Vec<Output> {
        let mut out = Vec::new();
        let from = from.parse().expect("an address");
        let local = "192.0.2.1:3478".parse().expect("an address");
        let mut cx = Cx { now, cfg, rng: &mut NoRng, out: &mut out };
        stun.handle_input(&mut cx, Input::Datagram { from, local, bytes });
        out
    }

    fn request(unknown: &[u16]) -> Vec<u8> {
        let mut bytes = Message::Request { id: TransactionId([1; 12]), unknown: vec![] }.encode();
        bytes.truncate(HEADER_LEN);
        for name in unknown {
            bytes.extend(name.to_be_bytes());
            bytes.extend([0, 0]);
        }
        let len = u16::try_from(bytes.len() - HEADER_LEN).expect("short");
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
        bytes
    }

    fn answered(out: &[Output]) -> Option<Message> {
        out.iter().find_map(|o| match o {
            Output::Datagram { bytes, .. } => Message::decode(bytes).ok(),
            Output::Count(_) => None,
        })
    }

    #[test]
    fn a_client_learns_where_it_is_seen() {
        let (mut stun, cfg) = (Stun::default(), Config::default());
        for (from, mapped) in
            [("198.51.100.7:4000", "198.51.100.7:4000"), ("[::ffff:198.51.100.7]:1", "198.51.100.7:1")]
        {
            let out = ask(&mut stun, &cfg, Time(0), from, request(&[]));
            let mapped = mapped.parse().expect("an address");
            assert_eq!(answered(&out), Some(Message::Success { id: TransactionId([1; 12]), mapped }));
        }
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named_in_error_420() {
        let out = ask(&mut Stun::default(), &Config::default(), Time(0), "198.51.100.7:1", request(&[3, 0x7fff]));
        let expected = Message::Error { id: TransactionId([1; 12]), code: 420, unknown: vec![3, 0x7fff] };
        assert_eq!(answered(&out), Some(expected));
    }

    #[test]
    fn answers_garbage_and_answers_with_silence() {
        let (mut stun, cfg) = (Stun::default(), Config::default());
        let mapped = "192.0.2.9:9".parse().expect("an address");
        let success = Message::Success { id: TransactionId([1; 12]), mapped }.encode();
        for bytes in [vec![], vec![0; 20], success] {
            assert_eq!(ask(&mut stun, &cfg, Time(0), "198.51.100.7:1", bytes), [Output::Count(Metric::Ignored)]);
        }
    }

    #[test]
    fn no_answer_is_longer_than_five_times_its_request() {
        let most: Vec<u16> = (0x100..0x100 + 130).collect();
        for n in [0, 1, 2, 3, 130] {
            let bytes = request(&most[..n]);
            let len = bytes.len();
            let out = ask(&mut Stun::default(), &Config::default(), Time(0), "198.51.100.7:1", bytes);
            assert!(out.iter().all(|o| !matches!(o, Output::Datagram { bytes, .. } if bytes.len() > 5 * len)));
            assert!(answered(&out).is_some());
        }
    }

    #[test]
    fn a_network_gets_its_rate_and_no_more() {
        let cfg = Config { answers_per_second: 3, networks_max: 2 };
        let mut stun = Stun::default();
        let mut count = |now: u64, from: &str| {
            let out = ask(&mut stun, &cfg, Time(now), from, request(&[]));
            answered(&out).is_some()
        };
        let answers = (0..10).filter(|n| count(0, &alloc::format!("198.51.100.{n}:1"))).count();
        assert_eq!(answers, 3, "one /24 shares a bucket");
        assert!(count(0, "198.51.101.1:1"), "another has its own");
        assert!(!count(0, "198.51.102.1:1"), "the table is full of busy networks");
        assert!(!count(300_000, "198.51.100.1:1"));
        assert!(count(400_000, "198.51.100.1:1"), "a third of a second is one answer");
        assert!(count(1_100_000, "198.51.102.1:1"), "a network silent for a second makes room");
    }
}
