//! Handles answers of gateways (routers) to requests for port mappings, by each protocol.

use super::io::{Protocol, Why};
use super::{Context, Epoch, LIFETIME_S, Lease, Mapping, RENEW_MIN, WAIT_MAX, natpmp, number, pcp};
use crate::machine::Time;
use crate::nat::Transport;
use core::net::{IpAddr, SocketAddrV4};
use core::time::Duration;

impl Mapping {
    /// Handles a datagram of the gateway: NAT-PMP or PCP, by its version.
    pub(super) fn gateway_says(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        match bytes.first() {
            Some(&natpmp::VERSION) => {
                if let Ok(answer) = natpmp::Answer::decode(bytes) {
                    self.natpmp_says(cx, answer);
                }
            }
            _ => {
                if let Ok(answer) = pcp::Answer::decode(bytes) {
                    self.pcp_says(cx, answer);
                }
            }
        }
    }

    fn pcp_says(&mut self, cx: &mut Context<'_>, answer: pcp::Answer) {
        let asked = self.ask.as_ref().is_some_and(|a| a.protocol == Protocol::Pcp);
        let port = self.site.map_or(0, |s| s.local.port());
        match answer {
            pcp::Answer::Announced { epoch_s } => self.announced(cx, epoch_s),
            pcp::Answer::Mapped(m) if asked && m.nonce == self.nonce && m.internal_port == port => {
                if m.lifetime_s > 0 && m.over == self.over() {
                    let broken = self.count(cx.now, m.epoch_s);
                    self.opened(cx, Protocol::Pcp, m.external, m.lifetime_s, broken);
                }
            }
            pcp::Answer::Refused { code, nonce, wait_s, .. } if asked => {
                let version = code == pcp::UNSUPPORTED_VERSION;
                if version || nonce == Some(self.nonce) {
                    self.refused(cx, (!version).then_some(u16::from(code)), wait_s);
                }
            }
            pcp::Answer::Mapped(_) | pcp::Answer::Refused { .. } => {}
        }
    }

    fn natpmp_says(&mut self, cx: &mut Context<'_>, answer: natpmp::Answer) {
        if matches!(answer.said, natpmp::Said::Address(_)) {
            // unasked it looks the same (RFC 6886 §3.2.1)
            self.announced(cx, answer.epoch_s);
        }
        let Some(ask) = &mut self.ask else { return };
        let (own, port) = self.site.map_or((Transport::Udp, 0), |s| (s.over, s.local.port()));
        match (ask.protocol, answer.said) {
            // RFC 6887 appendix A: what a gateway without PCP says to a PCP request
            (Protocol::Pcp, natpmp::Said::Refused(_)) => self.refused(cx, None, 0),
            (Protocol::NatPmp, natpmp::Said::Refused(code)) => self.refused(cx, Some(code), 0),
            (Protocol::NatPmp, natpmp::Said::Address(ip)) => ask.address = Some(ip),
            (Protocol::NatPmp, natpmp::Said::Mapped { over, internal_port, external_port, lifetime_s })
                if over == own && internal_port == port && lifetime_s > 0 =>
            {
                ask.mapped = Some((external_port, lifetime_s));
            }
            _ => return,
        }
        let Some((ip, (port, lifetime_s))) = self.ask.as_ref().and_then(|a| a.address.zip(a.mapped)) else { return };
        let broken = self.count(cx.now, answer.epoch_s);
        self.opened(cx, Protocol::NatPmp, SocketAddrV4::new(ip, port), lifetime_s, broken);
    }

    /// Handles the gateway's refusal of a request: continues with the next protocol. `code`: the protocol's error
    /// code. `wait_s`: seconds for which the gateway must not be asked again.
    pub(super) fn refused(&mut self, cx: &mut Context<'_>, code: Option<u16>, wait_s: u32) {
        if let Some(ask) = &mut self.ask {
            ask.wait = ask.wait.max(Duration::from_secs(wait_s.into()).min(WAIT_MAX));
        }
        self.go_on(cx, code);
    }

    /// Handles an announcement of the gateway's epoch (seconds since its mapping table was reset). If it shows a
    /// restart, the mapping counts as lost until it is renewed and tested. At most one announcement in [`RENEW_MIN`]
    /// is acted on, since any host on the network can forge it.
    fn announced(&mut self, cx: &mut Context<'_>, epoch_s: u32) {
        let lately = self.heeded.is_some_and(|at| cx.now.since(at) < RENEW_MIN);
        if lately || !self.epoch.is_some_and(|e| e.is_broken_by(cx.now, epoch_s)) {
            return;
        }
        (self.heeded, self.check) = (Some(cx.now), None);
        self.lease.iter_mut().for_each(|l| l.verified = false);
        self.renew(cx);
    }

    /// Records the gateway's epoch, the seconds since its mapping table was reset. Returns whether the gateway has
    /// lost its mappings.
    fn count(&mut self, now: Time, server_s: u32) -> bool {
        let broken = self.epoch.is_some_and(|e| e.is_broken_by(now, server_s));
        self.epoch = Some(Epoch { server: Duration::from_secs(server_s.into()), at: now });
        broken
    }

    /// Handles the gateway's answer that it forwards the port `external`; `broken`: the gateway has restarted. The
    /// mapping is discarded if it is too short or the address is not the public one, and is else tested from outside.
    pub(super) fn opened(
        &mut self,
        cx: &mut Context<'_>,
        protocol: Protocol,
        external: SocketAddrV4,
        lifetime_s: u32,
        broken: bool,
    ) {
        let began = self.ask.take().map_or(cx.now, |a| a.began);
        let lifetime_s = lifetime_s.min(LIFETIME_S.1);
        let lifetime = Duration::from_secs(lifetime_s.into());
        let verified = self.lease.is_some_and(|l| l.verified && l.external == external) && !broken;
        let ends = began.after(lifetime);
        self.lease = Some(Lease { protocol, external, lifetime_s, ends, verified });
        // at a time of its own, so that not all of a gateway's clients come at once (RFC 6887 §11.2.1)
        let jitter = Duration::from_secs(u64::from(u32::from(number(cx.rng)) % (lifetime_s / 16 + 1)));
        self.next = Some(cx.now.after(lifetime / 2 + jitter));
        let seen = self.sight.as_ref().map(|s| *s.mapped.ip());
        if lifetime_s < LIFETIME_S.0 {
            self.close(cx);
            self.why = None;
            return self.give_up(cx, Why::TooShort { protocol, lifetime_s }, Duration::ZERO);
        }
        if seen != Some(*external.ip()) || crate::nat::is_private(IpAddr::V4(*external.ip())) {
            self.close(cx);
            self.why = None;
            return self.give_up(cx, Why::DoubleNat { protocol, external: *external.ip() }, Duration::ZERO);
        }
        if !verified {
            self.begin_check(cx);
        }
    }
}
