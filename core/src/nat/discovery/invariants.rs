//! Invariants of NAT behaviour discovery, for [`crate::machine::Machine::check`].

use super::way::{Probe, Stage, Way};
use super::{CONTACTS_MAX, Discovery, MISSED_MAX, SERVERS_MAX};
use crate::machine::Machine as _;

impl Discovery {
    /// Asserts the bounds and the deadlines, without a loop over requests.
    pub(super) fn check_round(&self) {
        assert!(self.servers.len() <= SERVERS_MAX, "no more servers are asked than allowed");
        assert!(self.tcp.len() <= 2, "one server is asked over TCP, at two ports");
        assert!(self.contacts.len() <= CONTACTS_MAX, "no more addresses are remembered than allowed");
        assert!(self.missed <= MISSED_MAX, "a network that misses too many refreshes is looked at anew");
        let later = self.again.is_some() || self.refresh.is_some();
        assert!(self.ends.is_none() || !later, "nothing is planned while a round is under way");
    }

    /// Asserts every invariant of NAT behaviour discovery.
    pub(super) fn check_all(&self) {
        self.check_round();
        self.tcp_reach.check();
        self.lifetime.check();
        assert!(!self.ways[0].v6 && self.ways[1].v6, "each address family has its findings");
        self.ways.iter().for_each(|way| self.check_way(way));
        for (i, t) in self.open.iter().enumerate() {
            let refresh = t.probe == Probe::Refresh;
            assert!(refresh == self.ends.is_none(), "a mapping is refreshed between rounds only");
            let alike = |u: &super::Transaction| u.probe == t.probe && u.to.is_ipv6() == t.to.is_ipv6();
            assert!(!self.open[..i].iter().any(alike), "each question is asked once at a time");
        }
    }

    fn check_way(&self, way: &Way) {
        let waits = matches!(way.stage, Stage::Reach | Stage::Filter | Stage::Hairpin);
        assert!(way.due.is_none() || (waits && self.ends.is_some()), "only a stage that waits has a deadline");
        assert!(way.mapped.is_some() == way.server.is_some(), "a mapping is seen by a server");
        assert!(way.cookie.is_none() || way.mapped.is_some(), "a cookie is for a mapping");
        let family = [way.mapped, way.server, way.other].into_iter().flatten().all(|addr| addr.is_ipv6() == way.v6);
        assert!(family, "the findings about an address family are of that family");
        let asked = |seen: bool, server: bool| !seen || server;
        let second = asked(way.second.is_some(), way.second_server.is_some());
        let third = asked(way.third.is_some(), way.third_server.is_some());
        assert!(second && third, "only a server that was asked sees a mapping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;
    use crate::machine::{Cx, Time};
    use crate::nat::cookie::Cookie;
    use crate::nat::discovery::Transaction;
    use crate::nat::discovery::io::{Config, Input, Network, Socket};
    use crate::nat::stun::{Message, TransactionId};
    use alloc::vec;
    use core::net::SocketAddr;

    fn addr(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 3478))
    }

    fn run(m: &mut Discovery, input: Input) {
        let (cfg, rng) = (Config::default(), &mut crate::seeded::Seeded::new(1));
        m.handle_input(&mut Cx { now: Time(1), cfg: &cfg, rng, out: &mut vec![] }, input);
    }

    /// Returns a discovery machine that has asked its first server and waits.
    fn healthy() -> Discovery {
        let mut m = Discovery::default();
        let network = Network { hosts: vec![addr(1)], servers: vec![addr(2)], gateway: None };
        run(&mut m, Input::Network(network));
        m
    }

    #[test]
    fn a_hairpin_answer_ends_its_stage_with_the_deadline() {
        let mut m = healthy();
        let id = TransactionId([7; 12]);
        (m.ways[0].stage, m.ways[0].due) = (Stage::Hairpin, Some(Time(5)));
        m.open = vec![Transaction { id, probe: Probe::Hairpin, to: addr(1), sent: 1, due: Time(9) }];
        let bytes = Message::request(id).encode();
        run(&mut m, Input::Datagram { socket: Socket::Main, from: addr(1), bytes });
        m.check();
        assert_eq!((m.hairpin, m.ways[0].stage), (true, Stage::Done));
    }

    #[test]
    fn each_clause_about_a_round_fires() {
        assert_each_clause_fires(
            &healthy(),
            Discovery::check,
            &[
                ("no more servers are asked than allowed", |m| m.servers = vec![addr(1); SERVERS_MAX + 1]),
                ("one server is asked over TCP, at two ports", |m| _ = m.tcp.insert(addr(9), None)),
                ("no more addresses are remembered than allowed", |m| {
                    m.contacts.extend((0..=64).map(|n| (addr(n), Time(1))));
                }),
                ("a network that misses too many refreshes is looked at anew", |m| m.missed = MISSED_MAX + 1),
                ("nothing is planned while a round is under way", |m| m.again = Some(Time(1))),
                ("each address family has its findings", |m| m.ways[1].v6 = false),
                ("a mapping is refreshed between rounds only", |m| m.open[0].probe = Probe::Refresh),
                ("each question is asked once at a time", |m| m.open.push(m.open[0].clone())),
            ],
        );
    }

    #[test]
    fn each_clause_about_an_address_family_fires() {
        assert_each_clause_fires(
            &healthy(),
            Discovery::check,
            &[
                ("only a stage that waits has a deadline", |m| m.ways[0].stage = Stage::Done),
                ("a mapping is seen by a server", |m| m.ways[0].mapped = Some(addr(3))),
                ("a cookie is for a mapping", |m| {
                    m.ways[0].cookie = Some(Cookie { epoch: 1, issued_s: 1, mac: [0; 16] });
                }),
                ("the findings about an address family are of that family", |m| {
                    let v6 = "[2001:db8::1]:3478".parse().ok();
                    (m.ways[0].mapped, m.ways[0].server) = (v6, v6);
                }),
                ("only a server that was asked sees a mapping", |m| m.ways[0].second = Some(addr(3))),
            ],
        );
    }
}
