//! Measures how long a mapping lives without traffic (RFC 5780 §4.6): a separate socket sends two requests, then
//! nothing for a while; then another socket asks the server to send to the first one's external port. Each tested
//! time costs at most eight packets. The measurement ends with the first time after which the mapping is lost, and is
//! made once per network.

use super::io::{Config, Effect, Input, Output, Report, Socket};
use super::{NatDescriptor, transaction_id};
use crate::machine::{Cx, Machine, Time};
use crate::nat::stun::{Attribute, Class, Message, TransactionId};
use core::net::SocketAddr;
use core::time::Duration;

/// Delay between the two exchanges with the server: Linux, for instance, keeps a flow longer if answers came over
/// more than two seconds.
const WARM: Duration = Duration::from_secs(3);
/// Time-out for the server's answer to a request.
const ANSWER: Duration = Duration::from_secs(1);
/// Maximum number of transmissions of one request.
const TRIES: u32 = 3;
/// Minimum interval between refreshes of a mapping.
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(15);
/// Maximum interval between refreshes of a mapping.
const KEEP_ALIVE_MAX: Duration = Duration::from_secs(120);

/// State machine that measures the lifetime of a mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lifetime {
    /// Longest time without traffic after which the mapping still existed; zero if none was found.
    pub lives: Duration,
    /// Time without traffic after which the mapping was lost; `None` if none was found.
    pub dies: Option<Duration>,
    stage: Stage,
    server: Option<SocketAddr>,
    /// Index in [`Config::silences`] of the time under test.
    at: usize,
    id: Option<TransactionId>,
    tries: u32,
    due: Option<Time>,
    mapped: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Stage {
    #[default]
    Idle,
    /// The first request was sent to the server.
    First,
    Pause,
    Second,
    Silence,
    /// The server was asked to send to the silent socket.
    Wake,
    Over,
}

impl Lifetime {
    /// Begins the measurement with this server, unless it was begun before or `silences` is empty.
    pub fn begin(&mut self, cx: &mut Cx<'_, Self>, server: SocketAddr) {
        if self.stage == Stage::Idle && !cx.cfg.silences.is_empty() {
            self.server = Some(server);
            self.enter(cx, Stage::First);
        }
    }

    /// Returns the interval between refreshes of the mapping: two thirds of its measured lifetime, within limits, or
    /// [`Config::keep_alive`] before the measurement.
    #[must_use]
    pub fn keep_alive(&self, cfg: &Config) -> Duration {
        match self.dies {
            None if self.lives.is_zero() => cfg.keep_alive,
            Some(_) if self.lives.is_zero() => KEEP_ALIVE_MIN.min(cfg.keep_alive),
            _ => (self.lives * 2 / 3).clamp(KEEP_ALIVE_MIN, KEEP_ALIVE_MAX),
        }
    }

    fn enter(&mut self, cx: &mut Cx<'_, Self>, stage: Stage) {
        (self.stage, self.tries) = (stage, 0);
        match stage {
            Stage::First | Stage::Second | Stage::Wake => {
                self.id = Some(transaction_id(cx.rng));
                self.ask(cx);
            }
            Stage::Pause => self.due = Some(cx.now.after(WARM)),
            Stage::Silence => {
                let silence = cx.cfg.silences.get(self.at).copied().unwrap_or_default();
                self.due = Some(cx.now.after(silence));
            }
            Stage::Idle | Stage::Over => {
                (self.due, self.id) = (None, None);
                // what stands in it is the parent's to say
                cx.push(Output::Report(Report::nothing()));
            }
        }
    }

    fn ask(&mut self, cx: &mut Cx<'_, Self>) {
        let (Some(server), Some(id)) = (self.server, self.id) else { return };
        self.tries += 1;
        self.due = Some(cx.now.after(ANSWER));
        let mut request = Message::request(id);
        let mut socket = Socket::Silent;
        if self.stage == Stage::Wake {
            socket = Socket::Asker;
            request.attributes.extend(self.mapped.map(|m| Attribute::ResponsePort(m.port())));
        }
        cx.push(Output::Effect(Effect::Send { socket, to: server, bytes: request.encode() }));
    }

    /// Handles a STUN message; ignores answers to other requests than those of the measurement.
    pub fn datagram(&mut self, cx: &mut Cx<'_, Self>, socket: Socket, from: SocketAddr, message: &Message) {
        if self.id != Some(message.id) || self.server != Some(from) {
            return;
        }
        match (self.stage, message.class, socket) {
            (Stage::First, Class::Success, Socket::Silent) => {
                self.mapped = message.mapped();
                self.enter(cx, Stage::Pause);
            }
            (Stage::Second, Class::Success, Socket::Silent) if message.mapped() == self.mapped => {
                self.enter(cx, Stage::Silence);
            }
            (Stage::Wake, Class::Success, Socket::Silent) => {
                self.lives = cx.cfg.silences.get(self.at).copied().unwrap_or_default();
                self.at += 1;
                let next = if self.at < cx.cfg.silences.len() { Stage::First } else { Stage::Over };
                self.enter(cx, next);
            }
            // the server does not do that
            (Stage::Wake, Class::Error, Socket::Asker) => self.enter(cx, Stage::Over),
            _ => {}
        }
    }
}

impl Report {
    /// Returns the result of a discovery that has found out nothing.
    fn nothing() -> Self {
        Self {
            nat: NatDescriptor::default(),
            server: None,
            two_addresses: false,
            translated: false,
            keeps_port: None,
            tcp: false,
            seen: None,
            doors: alloc::vec::Vec::new(),
            lives: Duration::ZERO,
            dies: None,
            keep_alive: Duration::ZERO,
        }
    }
}

impl Machine for Lifetime {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Cx<'_, Self>, input: Input) {
        if let Input::Datagram { socket, from, bytes } = input
            && let Ok(message) = Message::decode(&bytes)
        {
            self.datagram(cx, socket, from, &message);
        }
    }

    fn handle_timeout(&mut self, cx: &mut Cx<'_, Self>) {
        if !cx.is_due(self.due) {
            return;
        }
        match self.stage {
            Stage::Pause => self.enter(cx, Stage::Second),
            Stage::Silence => self.enter(cx, Stage::Wake),
            Stage::First | Stage::Second | Stage::Wake if self.tries < TRIES => self.ask(cx),
            Stage::Wake => {
                self.dies = cx.cfg.silences.get(self.at).copied();
                self.enter(cx, Stage::Over);
            }
            // the network is gone: nothing is learned of a mapping's lifetime
            Stage::First | Stage::Second => self.enter(cx, Stage::Over),
            Stage::Idle | Stage::Over => self.due = None,
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.due
    }

    fn rebase(&mut self, by: Duration) {
        self.due = self.due.map(|at| at.rebased(by));
    }

    fn check(&self) {
        let measures = !matches!(self.stage, Stage::Idle | Stage::Over);
        assert!(self.due.is_some() == measures, "a measurement of a lifetime has a deadline");
        let asks = matches!(self.stage, Stage::First | Stage::Second | Stage::Wake);
        assert!(!asks || (self.id.is_some() && self.server.is_some()), "an answer is awaited from a server");
        assert!(self.tries <= TRIES, "a server is asked a few times only");
        assert!(measures || self.id.is_none(), "no answer is awaited once a measurement is over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    #[test]
    fn each_clause_about_a_lifetime_fires() {
        let mut healthy = Lifetime::default();
        let cfg = Config::default();
        let cx = &mut Cx { now: Time(1), cfg: &cfg, rng: &mut crate::seeded::Seeded::new(1), out: &mut alloc::vec![] };
        healthy.begin(cx, "192.0.2.1:3478".parse().expect("an address"));
        assert_each_clause_fires(
            &healthy,
            Lifetime::check,
            &[
                ("a measurement of a lifetime has a deadline", |l| l.due = None),
                ("an answer is awaited from a server", |l| l.id = None),
                ("a server is asked a few times only", |l| l.tries = TRIES + 1),
                ("no answer is awaited once a measurement is over", |l| (l.stage, l.due) = (Stage::Over, None)),
            ],
        );
    }
}
