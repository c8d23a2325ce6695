//! Holder's tickets, by which the CN tells which of a client's copies may be offered to others. DNs learn only of
//! versions for which the client shows an edge's ticket in its own name. A ticket's signature is checked once and then
//! remembered, and the session pays for it, far more if the ticket is not valid; so strangers cannot keep this CN busy
//! with false tickets.

use super::prices::Budget;
use super::{Cn, Context, Metric, Output, Timer};
use crate::accounting::certs::KnownCerts;
use crate::accounting::tickets;
use crate::holdings::{Amount, Holding, Holdings, Limits, Room};
use crate::ids::{ConnId, Digest, Guid, VersionId};
use crate::machine::Time;
use crate::selection::locality::prefix;
use crate::wire::control::{Held, Inventory, Shared, TicketsRefused, ToClient};
use crate::wire::records::ServerCert;
use crate::wire::{List, Wire as _};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use sha2::{Digest as _, Sha256};

/// Memory of one verified ticket, bytes: rounded up.
const TICKET_BYTES: u64 = 512;

/// Returns the bounds of `max` tickets: a quarter is for one network, which one client with the largest inventory may
/// fill.
fn limits(max: u32) -> Limits {
    let of = |n: u32| Amount::of(n.into(), TICKET_BYTES);
    Limits { total: of(max), prefix: of(max / 4), key: of(max / 4) }
}

/// Tickets whose signatures were verified, by their hashes. In a full table the oldest ticket of the network with most
/// goes, and is verified again when it is shown again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tickets {
    places: Holdings<Digest, Guid>,
    certs: KnownCerts,
}

impl Tickets {
    fn has(&self, ticket: Digest) -> bool {
        self.places.get(ticket).is_some()
    }

    fn add(&mut self, now: Time, limits: &Limits, ticket: Digest, (guid, from): (Guid, IpAddr)) {
        let prefix = prefix(from);
        loop {
            match self.places.ask(limits, (prefix, guid), Amount::one(TICKET_BYTES)) {
                Room::Free => break,
                Room::Full(_) => return,
                Room::InPlaceOf(oldest) => _ = self.places.take(oldest),
            }
        }
        self.places.put(ticket, Holding { prefix, key: guid, bytes: TICKET_BYTES, turn: (0, now), kept: false });
    }

    /// Shifts all times, as [`crate::machine::Machine::rebase`] does.
    pub(super) fn rebase(&mut self, by: Duration) {
        self.places.rebase(by);
    }

    pub(super) fn check(&self) {
        self.places.check();
        self.certs.check();
    }
}

/// Result of the check of one ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The version may be offered.
    Granted,
    /// The ticket is of an edge, but its policy has ended, forbids peers, or was withdrawn. The client learns of that
    /// by the notice.
    Ended,
    /// The ticket is not an edge's, or not of this client and version.
    Refused,
    /// The session cannot pay for the check now.
    Unpaid,
}

impl Cn {
    /// Returns those versions in a client's page that it was granted and that may be shared now. The others are
    /// counted; the client is told which tickets are refused, and is asked again for those that it cannot pay for now.
    pub(super) fn granted(&mut self, cx: &mut Context<'_>, conn: ConnId, page: &Inventory) -> Vec<Shared> {
        let (mut granted, mut refused, mut unpaid) = (Vec::new(), Vec::new(), false);
        for held in page.add.iter() {
            let verdict = self.check_ticket(cx, conn, held, &page.certs);
            match verdict {
                Verdict::Granted => granted.push(Shared { version: held.version, complete: held.complete }),
                Verdict::Ended | Verdict::Refused => cx.push(Output::Count(Metric::HoldingIgnored)),
                Verdict::Unpaid => unpaid = true,
            }
            if verdict == Verdict::Refused {
                refused.push(held.version);
            }
        }
        if !refused.is_empty() {
            Self::refuse_tickets(cx, conn, refused);
        }
        if unpaid {
            self.check_later(cx, conn);
        }
        granted
    }

    fn check_ticket(&mut self, cx: &Context<'_>, conn: ConnId, held: &Held, certs: &[ServerCert]) -> Verdict {
        let now_ms = self.common.now_ms(cx.now);
        let Some((client, guid)) = self.sessions.client(conn).and_then(|c| Some((c.from.ip(), c.session()?.guid)))
        else {
            return Verdict::Refused;
        };
        let Some(signed) = held.signed_ticket(guid, certs) else { return Verdict::Refused };
        let newest = self.notices.newest_terms(held.version);
        if !tickets::is_in_force(&signed.ticket, newest.as_ref().map(|(serial, terms)| (*serial, terms)), now_ms) {
            return Verdict::Ended;
        }
        let hash = Digest(Sha256::digest(signed.to_bytes()).into());
        if self.tickets.has(hash) {
            return Verdict::Granted;
        }
        let Some(session) = self.sessions.get_mut(conn) else { return Verdict::Refused };
        let prices = &cx.cfg.prices;
        if session.budgets.pay(cx.now, Budget::Tickets, prices.false_ticket).is_err() {
            return Verdict::Unpaid;
        }
        if tickets::check(&cx.cfg.trust(), &mut self.tickets.certs, &signed, now_ms).is_err() {
            return Verdict::Refused;
        }
        session.budgets.refund(Budget::Tickets, prices.false_ticket.saturating_sub(prices.ticket));
        self.tickets.add(cx.now, &limits(cx.cfg.tickets_max), hash, (guid, client));
        Verdict::Granted
    }

    fn refuse_tickets(cx: &mut Context<'_>, conn: ConnId, versions: Vec<VersionId>) {
        let refused = TicketsRefused { versions: List::truncated(versions) };
        cx.push(Output::ClientSend { conn, msg: ToClient::TicketsRefused(refused) });
    }

    /// Requests the client's whole inventory once its session has earned what it has spent on tickets.
    fn check_later(&mut self, cx: &Context<'_>, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(conn) else { return };
        session.dn_view.has_gap = true;
        let wait = session.budgets.spent_on_tickets(cx.now);
        if self.common.timers.get(Timer::Readd(conn)).is_none() {
            self.common.timers.set(Timer::Readd(conn), Some(cx.now.after(wait)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u32) -> Digest {
        Digest::numbered(n)
    }

    #[test]
    fn whoever_shows_most_tickets_has_its_own_forgotten() {
        let (mut verified, limits) = (Tickets::default(), limits(400));
        let at = |n: u8| (Guid::numbered(n.into()), IpAddr::from([20, 0, n, 1]));
        verified.add(Time::ZERO, &limits, hash(0), at(9));
        for n in 1..=1_000 {
            verified.add(Time(n.into()), &limits, hash(n), at(1));
            verified.add(Time(n.into()), &limits, hash(10_000 + n), at(2));
        }
        verified.check();
        assert_eq!(verified.places.all().items, 201, "a quarter of the table each, and the third client's one");
        assert!(verified.has(hash(0)) && verified.has(hash(1_000)) && !verified.has(hash(1)));
    }
}
