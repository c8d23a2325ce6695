//! Invariants of the uploading side, for [`crate::Machine::check`].

use super::{Conn, Input, Spending, Uploads};
use crate::ids::ConnId;
use alloc::collections::{BTreeMap, BTreeSet};

impl Uploads {
    /// Returns the connection that an event is about.
    pub(super) fn conn_of(&self, input: &Input) -> Option<ConnId> {
        match input {
            Input::Accepted { conn, .. } | Input::Closed { conn } => Some(*conn),
            Input::Message { conn, .. } | Input::Request { conn, .. } => Some(*conn),
            Input::Served { xfer, .. } => self.active.get(xfer).map(|active| active.conn),
            Input::Allow(_) | Input::Wall(_) | Input::Share { .. } | Input::Have { .. } => None,
            Input::Unshare { .. } | Input::ReceiptKept { .. } => None,
        }
    }

    /// Asserts the invariants of one connection, without a loop over the others.
    pub(super) fn check_conn(&self, conn: ConnId) {
        let [hello, receipt] = [&self.hello_due, &self.receipt_due].map(|due| due.get(conn).is_some());
        match self.conns.get(&conn) {
            None => assert!(!hello && !receipt, "a connection that has ended has no deadline"),
            Some(Conn::Waiting { .. }) => {
                assert!(self.allowed, "there is no connection while uploads are off");
                assert!(hello && !receipt, "a new connection must show an introduction in time");
            }
            Some(Conn::Serving { intro, held, .. }) => {
                assert!(self.allowed, "there is no connection while uploads are off");
                assert!(!hello && receipt != held.is_empty(), "a receipt is awaited if a request waits for it");
                assert!(self.shares.contains_key(&intro.version), "only shared versions are served");
                assert!(self.accounts.contains_key(&intro.id), "the bytes of each connection are accounted for");
            }
        }
    }

    /// Asserts every invariant of the uploading side.
    pub(super) fn check_all(&self) {
        self.hello_due.check();
        self.receipt_due.check();
        let due = self.hello_due.keys().chain(self.receipt_due.keys());
        due.chain(self.conns.keys().copied()).for_each(|conn| self.check_conn(conn));
        let mut counts: BTreeMap<ConnId, usize> = BTreeMap::new();
        self.active.values().for_each(|active| *counts.entry(active.conn).or_default() += 1);
        let mut intros = BTreeSet::new();
        for (conn, state) in &self.conns {
            if let Conn::Serving { intro, active, .. } = state {
                let count = counts.get(conn).copied().unwrap_or(0);
                assert!(usize::from(*active) == count, "the requests of a connection that are served are counted");
                assert!(intros.insert(intro.id), "an introduction has one connection");
            }
        }
        self.shares.values().for_each(|share| share.have.check());
        for Spending { account, shown, .. } in self.accounts.values() {
            assert!(account.spent <= shown.intro.cap_bytes, "no more is sent than an introduction allows");
            assert!(account.spent <= account.promised, "no more is sent than was promised");
            assert!(account.taken.1 <= account.promised, "no receipt is taken for more than was promised");
        }
    }
}
