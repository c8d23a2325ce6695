//! Prices of a session's messages, which limit what one client can make others do.
//!
//! A price is the time after which a session has earned it again, and a session may spend [`LEAD`] ahead. Prices are
//! charged in one place, before a message has any effect, and each leaves well above what an honest client needs:
//!
//! | message | price | in a minute | because it makes work for |
//! |---|---|---|---|
//! | query | 6 s | 10 | DN, signer, spool and 40 other clients; our own client keeps to ten itself |
//! | inventory | 0.4 ms a version | 150,000 versions | DN: two whole inventories of the largest client and more |
//! | … of a ticket in it that is not known yet | 0.8 ms more | 75,000 | checks: one signature |
//! | … of a ticket in it that is not valid | 0.5 s more | 120 | checks: strangers can make such tickets |
//! | update with a change | 1 s | 60 | DN: networks come and go, a NAT is examined again |
//! | … of the client's class | 0.4 ms a version more | 2 of the largest client | DN: all that the client shares |
//! | update without a change | none | | nobody: it ends here |
//! | opened, outcome | 50 ms | 1,200 | the other peer's CN: as many as a popular seeder may get |
//! | usage | 0.5 s | 120 | ledger, two records, and checks: one every few seconds for each download |
//! | unreceipted | 0.5 s | 120 | checks, DN |
//! | blame | 0.5 s | 120 | DN, ledger: each introduction is heard once |
//! | rekeyed | 0.5 s | 120 | checks, ledger: a session is heard once |
//! | notices held | 2 ms a subject | 30,000 subjects | answers, each once until it is acknowledged |
//! | ping, pong | 50 ms | 1,200 | one answer: one in 20 s |
//!
//! The last five belong to accounting and have a budget of their own: a client that floods this CN with requests loses
//! neither its accounting nor its session. Tickets have a budget of their own too, so that a client whose tickets are
//! false can query. A message that the budget does not allow has no effect, and ends no session. A query's answer says
//! when to repeat it. A usage record is not acknowledged, so the client sends it again. A client's newest state is sent
//! to the DNs once the budget allows it, without those in between. After a gap in its pages, or when its tickets could
//! not all be checked, the whole inventory is requested once the budget allows that; an inventory that the CN requests
//! because a DN has come up is free. Other messages are dropped.

use crate::limits::SHARES_PER_PEER_MAX;
use crate::machine::Time;
use crate::nat::Class;
use crate::wire::control::ToCn;
use core::time::Duration;

/// Maximum time by which a session may have spent more than it has earned.
pub const LEAD: Duration = Duration::from_secs(60);

/// Price of each kind of message, as the time in which a session earns it; zero means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Price of a query.
    pub query: Duration,
    /// Price of each version in an inventory page, and of each registered version when the class of its client
    /// changes.
    pub version: Duration,
    /// Price of checking a holder's ticket that turns out to be valid.
    pub ticket: Duration,
    /// Price of checking a holder's ticket that turns out not to be valid.
    pub false_ticket: Duration,
    /// Price of an update that changes something.
    pub update: Duration,
    /// Price of a signal ("opened") or outcome of a connection attempt.
    pub step: Duration,
    /// Price of a usage record, a report of missing receipts, a blame or a rekey.
    pub record: Duration,
    /// Price of a ping or pong.
    pub ping: Duration,
}

impl Prices {
    /// Prices of messages in production.
    pub const USUAL: Self = Self {
        query: Duration::from_secs(6),
        version: Duration::from_micros(400),
        ticket: Duration::from_micros(800),
        false_ticket: Duration::from_millis(500),
        update: Duration::from_secs(1),
        step: Duration::from_millis(50),
        record: Duration::from_millis(500),
        ping: Duration::from_millis(50),
    };

    /// Prices that limit nothing.
    pub const NONE: Self = Self {
        query: Duration::ZERO,
        version: Duration::ZERO,
        ticket: Duration::ZERO,
        false_ticket: Duration::ZERO,
        update: Duration::ZERO,
        step: Duration::ZERO,
        record: Duration::ZERO,
        ping: Duration::ZERO,
    };

    /// Returns the price of `n` versions in an inventory.
    pub(super) fn versions(&self, n: usize) -> Duration {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        self.version.saturating_mul(n).min(LEAD)
    }

    /// Returns a message's price and the budget that pays it. Updates are charged later, once it is clear what they
    /// change.
    pub(super) fn of(&self, msg: &ToCn) -> (Budget, Duration) {
        match msg {
            ToCn::Query(_) => (Budget::Requests, self.query),
            ToCn::Inventory(page) => (Budget::Requests, self.versions(page.add.len() + page.remove.len())),
            ToCn::Opened(_) | ToCn::Outcome(_) => (Budget::Requests, self.step),
            ToCn::Usage(_) | ToCn::Unreceipted(_) | ToCn::Rekeyed(_) | ToCn::Blame(_) => {
                (Budget::Accounting, self.record)
            }
            ToCn::NoticesHeld(list) => (Budget::Accounting, self.versions(list.notices.len().saturating_mul(5))),
            ToCn::Ping | ToCn::Pong => (Budget::Accounting, self.ping),
            // a second hello ends the session, so it needs no price
            ToCn::Update(_) | ToCn::Hello(_) => (Budget::Requests, Duration::ZERO),
        }
    }
}

/// One of a session's three budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    /// Budget for queries, inventories, updates and meetings.
    Requests,
    /// Budget for the checks of holder's tickets.
    Tickets,
    /// Budget for accounting and for keeping the session alive.
    Accounting,
}

/// Budgets of a session: for each, the time until which the session's earnings are spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Budgets {
    requests: Time,
    tickets: Time,
    accounting: Time,
}

impl Budgets {
    /// Returns the time until which a budget is spent.
    const fn spent(&mut self, budget: Budget) -> &mut Time {
        match budget {
            Budget::Requests => &mut self.requests,
            Budget::Tickets => &mut self.tickets,
            Budget::Accounting => &mut self.accounting,
        }
    }

    /// Pays a price from a budget; `Err` is the time after which it can be paid.
    pub(super) fn pay(&mut self, now: Time, budget: Budget, price: Duration) -> Result<(), Duration> {
        let paid = self.spent(budget);
        let lead = paid.since(now).saturating_add(price.min(LEAD));
        if price.is_zero() {
            return Ok(());
        }
        if lead > LEAD {
            return Err(lead.saturating_sub(LEAD));
        }
        *paid = now.after(lead);
        debug_assert!(paid.since(now) <= LEAD, "no session spends further ahead than it may");
        Ok(())
    }

    /// Returns the time after which the budget for requests can pay a price.
    pub(super) fn wait_for(&self, now: Time, price: Duration) -> Duration {
        self.requests.since(now).saturating_add(price).saturating_sub(LEAD)
    }

    /// Returns the time after which everything spent on tickets is earned.
    pub(super) fn spent_on_tickets(&self, now: Time) -> Duration {
        self.tickets.since(now)
    }

    /// Gives a price back to a budget.
    pub(super) fn refund(&mut self, budget: Budget, price: Duration) {
        let spent = self.spent(budget);
        *spent = spent.rebased(price);
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.requests = self.requests.rebased(by);
        self.tickets = self.tickets.rebased(by);
        self.accounting = self.accounting.rebased(by);
    }
}

/// State of a session's client as the DNs know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct DnView {
    /// Class under which the DNs list the client; `None` if it is not listed.
    pub(super) class: Option<Class>,
    /// Upper bound of the versions that the DNs list for the client: those added since the last whole inventory.
    pub(super) versions: usize,
    /// Whether the DNs have an old state of the client, because the budget did not allow to send the new one.
    pub(super) is_stale: bool,
    /// Whether inventory pages were skipped, so that a whole inventory is needed.
    pub(super) has_gap: bool,
}

impl DnView {
    /// Asserts that what the DNs lack will be sent: `tell` and `readd` say whether timers for the state and the
    /// inventory are set.
    pub(super) fn check(&self, tell: bool, readd: bool) {
        assert!(self.is_stale == tell, "exactly a stale state is sent to the DNs later");
        assert!(self.has_gap || !readd, "only after a gap an inventory is requested");
        assert!(self.versions <= SHARES_PER_PEER_MAX, "the versions that a client pays for are bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::assert_each_clause_fires;

    #[test]
    fn each_clause_about_the_state_that_dns_know_fires() {
        assert_each_clause_fires(
            &DnView { has_gap: true, ..DnView::default() },
            |view| view.check(false, true),
            &[
                ("exactly a stale state is sent to the DNs later", |view| view.is_stale = true),
                ("only after a gap an inventory is requested", |view| view.has_gap = false),
                ("the versions that a client pays for are bounded", |view| view.versions = SHARES_PER_PEER_MAX + 1),
            ],
        );
    }
}
