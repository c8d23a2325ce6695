//! Test from outside of a port that a gateway reports to forward (RFC 5780): a STUN server is asked to answer to that
//! port from an address to which the socket has sent nothing. If the server has only another port left at an address
//! already used, the answer is a proof only at an external port at which the socket was never seen.

use super::io::{Effect, Output, Why};
use super::{Context, Mapping, REDRAWS_MAX};
use crate::machine::Time;
use crate::nat::Transport;
use crate::nat::discovery::io::Socket;
use crate::nat::discovery::transaction_id;
use crate::nat::stun::{Attribute, Class, Message, TransactionId};
use core::net::SocketAddr;

/// Running test of whether a forwarded port can be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Check {
    id: TransactionId,
    /// STUN server that is asked to send to the external port.
    server: SocketAddr,
    /// Address and port from which the answer must come.
    from: SocketAddr,
    other_address: bool,
    port: u16,
    sent: u32,
    pub(super) due: Time,
}

impl Check {
    /// Returns the external port under test.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Returns a running test of an external port, for tests of the invariants.
    #[cfg(test)]
    pub(super) fn of_port(port: u16) -> Self {
        let server = SocketAddr::from(([198, 51, 100, 1], 3478));
        let (id, due) = (TransactionId([0; 12]), Time(1));
        Self { id, server, from: server, other_address: true, port, sent: 1, due }
    }
}

impl Mapping {
    /// Begins a test from outside of the port that the gateway forwards.
    pub(super) fn begin_check(&mut self, cx: &mut Context<'_>) {
        // an answer to an earlier look shows nothing about the port that is open now
        (self.check, self.recheck) = (None, None);
        let udp = self.lease.filter(|_| self.over() == Transport::Udp);
        let (Some(lease), Some(sight)) = (udp, &self.sight) else { return };
        let port = lease.external.port();
        let Some(witness) = sight.witness else {
            let why = Why::NoWitness { protocol: lease.protocol, external: lease.external };
            return self.not_shown(cx, why);
        };
        if !witness.other_address && sight.ports.contains(&port) {
            if !lease.verified && self.redraws < REDRAWS_MAX {
                self.redraws += 1;
                self.close(cx);
                return self.begin(cx);
            }
            // nothing can be shown at present; what was shown stands
            let why = Why::NoWitness { protocol: lease.protocol, external: lease.external };
            return self.not_shown(cx, why);
        }
        let id = transaction_id(cx.rng);
        let (server, from, other_address) = (sight.server, witness.from, witness.other_address);
        self.check = Some(Check { id, server, from, other_address, port, sent: 0, due: cx.now });
        self.check_due(cx);
    }

    fn not_shown(&mut self, cx: &Context<'_>, why: Why) {
        self.why = Some(why);
        self.recheck = Some(cx.now.after(cx.cfg.recheck));
    }

    /// Sends the test's request to the STUN server, again after each time-out, and ends the test as failed after the
    /// last one.
    pub(super) fn check_due(&mut self, cx: &mut Context<'_>) {
        let Some(check) = &mut self.check else { return };
        if check.sent < cx.cfg.check_tries {
            check.sent += 1;
            check.due = cx.now.after(cx.cfg.check_rto * check.sent);
            let change = Attribute::ChangeRequest { address: check.other_address, port: true };
            let attributes = alloc::vec![change, Attribute::ResponsePort(check.port)];
            let bytes = Message::new(Class::Request, check.id, attributes).encode();
            return cx.push(Output::Effect(Effect::Send { socket: Socket::Main, to: check.server, bytes }));
        }
        self.check = None;
        let Some(lease) = &mut self.lease else {
            // a test ends with the lease
            return debug_assert!(false, "only an open port is tested");
        };
        let was_open = core::mem::take(&mut lease.verified);
        let why = Why::Deaf { protocol: lease.protocol, external: lease.external };
        self.not_shown(cx, why);
        if was_open {
            self.renew(cx);
        }
    }

    /// Handles a STUN message on the QUIC socket: the answer to the test from outside, if it is one.
    pub(super) fn witness_says(&mut self, cx: &mut Context<'_>, from: SocketAddr, bytes: &[u8]) {
        let Some(check) = &self.check else { return };
        let Ok(message) = Message::decode(bytes) else { return };
        if message.id != check.id {
            return;
        }
        match message.class {
            Class::Success if from == check.from => {
                self.check = None;
                let Some(lease) = &mut self.lease else {
                    // a test ends with the lease
                    return debug_assert!(false, "only an open port is tested");
                };
                lease.verified = true;
                (self.why, self.redraws) = (None, 0);
                self.recheck = Some(cx.now.after(cx.cfg.recheck));
            }
            Class::Error if from == check.server => {
                self.check = None;
                if let Some(lease) = self.lease {
                    let why = Why::NoWitness { protocol: lease.protocol, external: lease.external };
                    self.not_shown(cx, why);
                }
            }
            Class::Success | Class::Error | Class::Request | Class::Indication => {}
        }
    }
}
