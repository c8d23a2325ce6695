//! Invariants of port mapping, for [`crate::machine::Machine::check`].

use super::io::{Protocol, Site};
use super::{Ask, LIFETIME_S, Lease, Mapping, REDRAWS_MAX, TCP_ID};
use crate::nat::Transport;

impl Mapping {
    /// Asserts every invariant of port mapping.
    pub(super) fn check_all(&self) {
        let works = self.ask.is_some() || self.lease.is_some() || self.check.is_some() || self.recheck.is_some();
        assert!(self.site.is_some() || !works, "a port is asked for and kept only behind a gateway");
        let plans = [self.ask.is_some(), self.next.is_some()];
        assert!(plans != [true; 2], "the next request waits for the end of the present one");
        assert!(self.lease.is_none() || plans != [false; 2], "a lease is being renewed or will be");
        self.ask.iter().for_each(|ask| self.check_ask(ask));
        self.lease.iter().for_each(|lease| self.check_lease(lease));
        self.check_tests();
        let numbered = |(id, site): (u32, Site)| (id & TCP_ID != 0) == (site.over == Transport::Tcp);
        assert!(self.opening.is_none_or(numbered), "the number of a UPnP request names its machine");
        assert!(!self.asked.contains(&Protocol::Upnp), "UPnP is not asked by datagrams");
        assert!(self.redraws <= REDRAWS_MAX, "a new port is drawn a few times only");
        let told = self.claimed == self.claimed() && self.forwarded == self.forwards();
        assert!(told, "a changed endpoint is reported");
    }

    fn check_ask(&self, ask: &Ask) {
        assert!(ask.renewal == self.lease.is_some(), "only a lease is renewed, and a new port asked for without one");
        let same = |l: &Lease| l.protocol == ask.protocol && l.ends == ask.ends;
        assert!(self.lease.as_ref().is_none_or(same), "a lease is renewed by its protocol until it ends");
        assert!(ask.due <= ask.ends, "no request waits longer than the attempt lasts");
        let answers = self.opening.is_some_and(|(id, site)| id == ask.id && Some(site) == self.site);
        assert!(ask.protocol != Protocol::Upnp || answers, "the answer to a UPnP request is recognised");
    }

    fn check_lease(&self, lease: &Lease) {
        let useful = (LIFETIME_S.0..=LIFETIME_S.1).contains(&lease.lifetime_s);
        assert!(useful, "a lease lasts for a useful time");
        let seen = self.sight.as_ref().is_some_and(|s| s.translated && s.mapped.ip() == lease.external.ip());
        assert!(seen, "the gateway's address is the one that STUN servers see");
    }

    fn check_tests(&self) {
        let udp = self.lease.filter(|_| self.over() == Transport::Udp);
        let port = udp.map(|lease| lease.external.port());
        let tested = self.check.as_ref().is_none_or(|check| Some(check.port()) == port);
        assert!(tested, "only the open UDP port is tested");
        assert!(self.check.is_none() || self.recheck.is_none(), "the next test waits for the end of the present one");
        assert!(self.recheck.is_none() || self.lease.is_some(), "only an open port is tested again");
        let verified = self.lease.is_some_and(|lease| lease.verified);
        assert!(!verified || self.over() == Transport::Udp, "only a UDP port is verified by this machine");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Clause, assert_each_clause_fires};
    use crate::machine::{Cx, Machine as _, Time};
    use crate::nat::discovery::io::Sight;
    use crate::nat::mapping::check::Check;
    use crate::nat::mapping::io::{Config, Input};
    use alloc::vec;
    use core::net::{Ipv4Addr, SocketAddrV4};

    const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), 40_000);
    const LEASE: Lease =
        Lease { protocol: Protocol::Pcp, external: OUTSIDE, lifetime_s: 3600, ends: Time(9), verified: false };

    fn run(m: &mut Mapping, input: Input) {
        let (cfg, rng) = (Config::default(), &mut crate::seeded::Seeded::new(1));
        m.handle_input(&mut Cx { now: Time(1), cfg: &cfg, rng, out: &mut vec![] }, input);
    }

    fn sight(translated: bool) -> Input {
        let server = "198.51.100.1:3478".parse().expect("an address");
        Input::Seen(Sight { mapped: OUTSIDE, translated, server, ports: vec![], witness: None })
    }

    /// Returns a port mapping that waits for its gateway's answer to a PCP request.
    fn asking() -> Mapping {
        let mut m = Mapping::default();
        let local = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 5000);
        run(&mut m, Input::Site(Some(Site { gateway: Ipv4Addr::new(192, 168, 1, 1), local, over: Transport::Udp })));
        run(&mut m, sight(true));
        m
    }

    /// Returns a port mapping whose port the gateway reports as open and which is not tested yet.
    fn leased() -> Mapping {
        Mapping { ask: None, next: Some(Time(5)), lease: Some(LEASE), ..asking() }
    }

    fn ask(m: &mut Mapping) -> &mut Ask {
        m.ask.as_mut().expect("a request")
    }

    fn lease(m: &mut Mapping) -> &mut Lease {
        m.lease.as_mut().expect("a lease")
    }

    const ASKING: &[Clause<Mapping>] = &[
        ("a port is asked for and kept only behind a gateway", |m| m.site = None),
        ("the next request waits for the end of the present one", |m| m.next = Some(Time(1))),
        ("only a lease is renewed, and a new port asked for without one", |m| ask(m).renewal = true),
        ("no request waits longer than the attempt lasts", |m| ask(m).due = Time(u64::MAX)),
        ("the answer to a UPnP request is recognised", |m| ask(m).protocol = Protocol::Upnp),
        ("the number of a UPnP request names its machine", |m| m.opening = m.site.map(|site| (TCP_ID | 1, site))),
        ("UPnP is not asked by datagrams", |m| _ = m.asked.insert(Protocol::Upnp)),
        ("a new port is drawn a few times only", |m| m.redraws = REDRAWS_MAX + 1),
        ("a changed endpoint is reported", |m| m.claimed = Some(OUTSIDE)),
        ("only an open port is tested again", |m| m.recheck = Some(Time(1))),
    ];

    const LEASED: &[Clause<Mapping>] = &[
        ("a lease is being renewed or will be", |m| m.next = None),
        ("a lease is renewed by its protocol until it ends", |m| {
            (m.ask, m.next) = (asking().ask, None);
            ask(m).renewal = true;
        }),
        ("a lease lasts for a useful time", |m| lease(m).lifetime_s = 1),
        ("the gateway's address is the one that STUN servers see", |m| {
            lease(m).external.set_ip(Ipv4Addr::new(203, 0, 113, 6));
        }),
        ("only the open UDP port is tested", |m| m.check = Some(Check::of_port(1))),
        ("the next test waits for the end of the present one", |m| {
            m.check = Some(Check::of_port(OUTSIDE.port()));
            m.recheck = Some(Time(1));
        }),
        ("only a UDP port is verified by this machine", |m| {
            lease(m).verified = true;
            m.site = m.site.map(|site| Site { over: Transport::Tcp, ..site });
        }),
    ];

    #[test]
    fn a_host_that_is_no_longer_translated_keeps_no_lease() {
        let mut m = leased();
        (m.ask, m.next) =
            (asking().ask.map(|ask| Ask { renewal: true, due: LEASE.ends, ends: LEASE.ends, ..ask }), None);
        m.check();
        run(&mut m, sight(false));
        assert_eq!((m.lease, m.poll_timeout()), (None, None));
    }

    #[test]
    fn each_clause_about_port_mapping_fires() {
        assert_each_clause_fires(&asking(), Mapping::check, ASKING);
        assert_each_clause_fires(&leased(), Mapping::check, LEASED);
    }
}
