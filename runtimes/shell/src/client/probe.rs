//! Asks STUN servers how they see the QUIC socket, and keeps asking: that keeps a NAT's mapping alive and notices
//! when it changes.

use super::network::{Seen, describe, hosts};
use crate::mailbox::Receiver;
use crate::quic::{Datagram, RawSender};
use crate::rt::Rt;
use futures_lite::future;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use swarmedge_core::nat::stun::{Class, Message, TransactionId};
use swarmedge_core::nat::{NatBehaviour, NatDescriptor};

/// RFC 8489 §6.2.1: the first retransmission timeout.
const RTO: Duration = Duration::from_millis(500);
/// RFC 8489 §6.2.1, `Rc`: requests of one transaction.
const REQUESTS_MAX: u32 = 7;
/// RFC 8489 §6.2.1, `Rm`: the wait after the last one, in RTOs.
const LAST_WAIT: u32 = 16;
/// Servers asked at a time: two tell all that is to be known.
const SERVERS_MAX: usize = 4;
/// Behind a NAT: shorter than the mappings of usual NATs live (RFC 4787 §4.3 asks for 2 minutes; many give 30 s).
const AGAIN_NAT: Duration = Duration::from_secs(25);
/// Without one there is nothing to keep alive.
const AGAIN_OPEN: Duration = Duration::from_secs(300);
/// Nobody has answered.
const AGAIN_SILENT: Duration = Duration::from_secs(60);

/// Observes the way to the Internet.
pub(super) struct Prober<R> {
    rt: R,
    raw: RawSender,
    datagrams: Receiver<Datagram>,
    known: NatDescriptor,
}

/// A request under way.
struct Transaction {
    server: SocketAddr,
    id: TransactionId,
    sent: u32,
    due: Instant,
}

impl<R: Rt> Prober<R> {
    pub(super) fn new(rt: R, raw: RawSender, datagrams: Receiver<Datagram>) -> Self {
        Self { rt, raw, datagrams, known: NatDescriptor::default() }
    }

    /// Observes once and again, for as long as it is polled. `changed` hears of each change.
    pub(super) async fn run(mut self, servers: Vec<SocketAddr>, mut changed: impl FnMut(&NatDescriptor)) {
        loop {
            let seen = self.ask(&servers, &mut changed).await;
            self.report(&servers, &seen, &mut changed);
            let again = match self.known.mapping {
                _ if seen.is_empty() => AGAIN_SILENT,
                NatBehaviour::EndpointIndependent if seen.iter().all(|s| is_host(&self.known, s.mapped)) => AGAIN_OPEN,
                NatBehaviour::Unknown
                | NatBehaviour::EndpointIndependent
                | NatBehaviour::AddressDependent
                | NatBehaviour::AddressAndPortDependent => AGAIN_NAT,
            };
            self.rt.sleep_until(self.rt.now() + again).await;
        }
    }

    /// Says what is new; the epoch rises with each change only.
    fn report(&mut self, servers: &[SocketAddr], seen: &[Seen], changed: &mut impl FnMut(&NatDescriptor)) {
        let Ok(bound) = self.raw.local_addr() else { return };
        let now = describe(self.known.epoch, &hosts(bound, servers), seen);
        if now != self.known {
            self.known = NatDescriptor { epoch: now.epoch + 1, ..now };
            changed(&self.known);
        }
    }

    /// One transaction with each server, all at once. What is better than before is reported at once: a download should
    /// not wait for a server that does not answer.
    async fn ask(&mut self, servers: &[SocketAddr], changed: &mut impl FnMut(&NatDescriptor)) -> Vec<Seen> {
        let now = self.rt.now();
        let new = |&server| Transaction { server, id: transaction_id(), sent: 0, due: now };
        let mut open: Vec<_> = servers.iter().take(SERVERS_MAX).map(new).collect();
        let mut seen = Vec::new();
        loop {
            let now = self.rt.now();
            open.retain_mut(|t| t.due > now || t.send(&self.raw, now));
            let Some(due) = open.iter().map(|t| t.due).min() else { return seen };
            let timer = async {
                self.rt.sleep_until(due).await;
                None
            };
            let Some(datagram) = future::or(self.datagrams.recv(), timer).await else { continue };
            let Ok(answer) = Message::decode(&datagram.bytes) else { continue };
            let (Class::Success, Some(mapped)) = (answer.class, answer.mapped()) else { continue };
            let Some(at) = open.iter().position(|t| t.id == answer.id && t.server == datagram.from) else { continue };
            seen.push(Seen { server: open.swap_remove(at).server, mapped });
            if !self.known.udp {
                self.report(servers, &seen, changed);
            }
        }
    }
}

impl Transaction {
    /// Sends it once more; `false` when it has been sent often enough and the last wait is over.
    fn send(&mut self, raw: &RawSender, now: Instant) -> bool {
        if self.sent == REQUESTS_MAX {
            return false;
        }
        // lost like any datagram, should it fail
        let _ = raw.send(&Message::request(self.id).encode(), self.server);
        self.sent += 1;
        let wait = if self.sent == REQUESTS_MAX { RTO * LAST_WAIT } else { RTO * (1 << (self.sent - 1)) };
        self.due = now + wait;
        true
    }
}

fn is_host(known: &NatDescriptor, mapped: SocketAddr) -> bool {
    use swarmedge_core::nat::CandidateKind;
    known.candidates.iter().any(|c| c.kind == CandidateKind::Host && c.addr == mapped)
}

/// RFC 8489 §5: unpredictable, so that nobody off the path can answer.
fn transaction_id() -> TransactionId {
    let mut id = [0; 12];
    getrandom::fill(&mut id).expect("the system gives random bytes");
    TransactionId(id)
}
