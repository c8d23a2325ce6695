//! The CN's side of notices: the newest notice about each subject, and each session's unacknowledged notices.

use super::{NoticeError, check};
use crate::accounting::Trust;
use crate::ids::{ConnId, VersionId};
use crate::limits::{ALL_NOTICES_WAITING_MAX, NOTICES_MAX, NOTICES_PAGE_MAX, NOTICES_UNACKED_MAX, NOTICES_WAITING_MAX};
use crate::machine::{Cx, Deadlines, Machine, Time};
use crate::wire::List;
use crate::wire::control::{NoticeList, ToClient};
use crate::wire::notice::{Known, Notice, SignedNotice, Subject, Terms};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

/// An event for the server's side of notices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// An edge has answered with these notices.
    Published {
        /// Present time, Unix milliseconds.
        now_ms: u64,
        /// Notices with their signatures, which are not checked yet.
        notices: Vec<SignedNotice>,
    },
    /// A session has opened.
    Opened(ConnId),
    /// A session has ended.
    Closed(ConnId),
    /// A client has reported its newest durable notices.
    Held {
        /// Connection of the session.
        conn: ConnId,
        /// Subjects with the serial numbers of the newest notices that the client has.
        held: Vec<Known>,
    },
}

/// A command of the server's side of notices.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Send a message to a client.
    Send {
        /// Connection of the session.
        conn: ConnId,
        /// The message to send.
        msg: ToClient,
    },
    /// A notice was new and valid, and is in force from now on.
    Learned(Known),
    /// A notice of an edge is refused.
    Refused(NoticeError),
}

/// Trust and intervals of the server's side of notices.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Public keys and signature check by which notices are accepted.
    pub trust: Trust,
    /// Time after which a notice that is not acknowledged is sent again.
    pub retry: Duration,
    /// Number of times that a notice is sent in one session.
    pub tries: u8,
}

impl Config {
    /// Returns the intervals for production.
    #[must_use]
    pub const fn new(trust: Trust) -> Self {
        Self { trust, retry: Duration::from_secs(10), tries: 6 }
    }
}

/// The newest notice about a subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Newest {
    notice: Notice,
    signed: SignedNotice,
}

/// A notice that a session has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Unacked {
    /// Serial number of the notice.
    serial: u64,
    /// Number of times that the notice was sent.
    sent: u8,
}

impl Unacked {
    /// Takes the place of an older notice, if the newest has another serial number; it was not sent yet.
    const fn renew(&mut self, newest: u64) {
        if self.serial != newest {
            *self = Self { serial: newest, sent: 0 };
        }
    }
}

/// Unacknowledged notices of a session, by subject.
type Waiting = BTreeMap<Subject, Unacked>;

/// The newest notices, and each session's unacknowledged ones. Invariants: a subject's serial number never decreases
/// while its notice is kept; when there are too many notices, the oldest are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    newest: BTreeMap<Subject, Newest>,
    /// Subjects in the order of their serial numbers.
    by_serial: BTreeSet<(u64, Subject)>,
    sessions: BTreeMap<ConnId, Waiting>,
    /// Number of unacknowledged notices, over all sessions.
    waiting: usize,
    retries: Deadlines<ConnId>,
}

type Context<'a> = Cx<'a, Server>;

impl Server {
    /// Returns the terms of a version in the newest notice about it.
    #[must_use]
    pub fn terms(&self, version: VersionId) -> Option<Terms> {
        self.newest.get(&Subject::version(version))?.notice.terms().map(|(_, terms)| terms)
    }

    /// Returns the newest notice's serial number and terms of a version.
    #[must_use]
    pub fn newest_terms(&self, version: VersionId) -> Option<(u64, Terms)> {
        let notice = &self.newest.get(&Subject::version(version))?.notice;
        notice.terms().map(|(_, terms)| (notice.serial, terms))
    }

    /// Returns the serial number of the newest notice about a subject; 0: none.
    #[must_use]
    pub fn serial(&self, subject: Subject) -> u64 {
        self.newest.get(&subject).map_or(0, |n| n.notice.serial)
    }

    fn on_published(&mut self, cx: &mut Context<'_>, now_ms: u64, notices: &[SignedNotice]) {
        let mut changed = BTreeMap::new();
        for signed in notices {
            match check(&cx.cfg.trust, now_ms, signed) {
                Err(why) => cx.push(Output::Refused(why)),
                Ok(notice) if notice.serial <= self.serial(notice.subject) => {}
                Ok(notice) => {
                    let known = notice.known();
                    if self.keep(notice, signed.clone()) {
                        changed.insert(known.subject, known.serial);
                        cx.push(Output::Learned(known));
                    }
                }
            }
        }
        let changed: Vec<Known> = changed.into_iter().map(|(subject, serial)| Known { subject, serial }).collect();
        for page in changed.chunks(NOTICES_PAGE_MAX) {
            for conn in self.sessions.keys() {
                let list = NoticeList { notices: List::truncated(page.iter().copied()) };
                cx.push(Output::Send { conn: *conn, msg: ToClient::NoticesChanged(list) });
            }
        }
    }

    /// Keeps a notice that is newer than the kept one about its subject; returns whether there was room.
    fn keep(&mut self, notice: Notice, signed: SignedNotice) -> bool {
        let known = notice.known();
        if let Some(old) = self.newest.insert(known.subject, Newest { notice, signed }) {
            self.by_serial.remove(&(old.notice.serial, known.subject));
        }
        self.by_serial.insert((known.serial, known.subject));
        if self.newest.len() > NOTICES_MAX
            && let Some((_, oldest)) = self.by_serial.pop_first()
        {
            self.newest.remove(&oldest);
        }
        self.newest.contains_key(&known.subject)
    }

    fn on_held(&mut self, cx: &mut Context<'_>, conn: ConnId, held: &[Known]) {
        for known in held {
            let newest = self.serial(known.subject);
            let has_room = self.waiting < ALL_NOTICES_WAITING_MAX;
            let Some(waiting) = self.sessions.get_mut(&conn) else { return };
            let before = waiting.len();
            if newest <= known.serial {
                waiting.remove(&known.subject);
            } else if let Some(unacked) = waiting.get_mut(&known.subject) {
                unacked.renew(newest);
            } else if waiting.len() < NOTICES_WAITING_MAX && has_room {
                waiting.insert(known.subject, Unacked { serial: newest, sent: 0 });
            }
            self.waiting = self.waiting.saturating_add(waiting.len()).saturating_sub(before);
        }
        self.send_waiting(cx, conn);
    }

    /// Sends a session's waiting notices, while the number sent and not acknowledged is below its limit.
    fn send_waiting(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(waiting) = self.sessions.get_mut(&conn) else { return };
        let sent = waiting.values().filter(|unacked| unacked.sent > 0).count();
        let unsent = waiting.iter_mut().filter(|(_, unacked)| unacked.sent == 0);
        for (subject, unacked) in unsent.take(NOTICES_UNACKED_MAX.saturating_sub(sent)) {
            unacked.sent = 1;
            if let Some(newest) = self.newest.get(subject) {
                cx.push(Output::Send { conn, msg: ToClient::Notice(newest.signed.clone()) });
            }
        }
        if waiting.is_empty() {
            self.retries.clear(conn);
        } else if self.retries.get(conn).is_none() {
            self.retries.set(conn, Some(cx.now.after(cx.cfg.retry)));
        }
    }

    /// Sends a session's unacknowledged notices again, and drops those that were sent `tries` times: the client reports
    /// its notices at its next login. A newer notice takes the place of an older one, and is sent as often as that.
    fn retry(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(waiting) = self.sessions.get_mut(&conn) else { return };
        let before = waiting.len();
        let (max, newest) = (cx.cfg.tries, &self.newest);
        waiting.retain(|subject, unacked| {
            let Some(newest) = newest.get(subject) else { return false };
            unacked.renew(newest.notice.serial);
            unacked.sent < max
        });
        self.waiting = self.waiting.saturating_add(waiting.len()).saturating_sub(before);
        for (subject, unacked) in waiting.iter_mut().filter(|(_, unacked)| unacked.sent > 0) {
            unacked.sent = unacked.sent.saturating_add(1);
            if let Some(newest) = newest.get(subject) {
                cx.push(Output::Send { conn, msg: ToClient::Notice(newest.signed.clone()) });
            }
        }
        self.send_waiting(cx, conn);
    }
}

impl Machine for Server {
    type Config = Config;
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::Published { now_ms, notices } => self.on_published(cx, now_ms, &notices),
            Input::Opened(conn) => _ = self.sessions.entry(conn).or_default(),
            Input::Closed(conn) => {
                let waiting = self.sessions.remove(&conn).map_or(0, |w| w.len());
                self.waiting = self.waiting.saturating_sub(waiting);
                self.retries.clear(conn);
            }
            Input::Held { conn, held } => self.on_held(cx, conn, &held),
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        // a timer that is set again for `now` is handled in the next call
        let mut due = Vec::new();
        while let Some(conn) = self.retries.pop_due(cx.now) {
            due.push(conn);
        }
        for conn in due {
            self.retry(cx, conn);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.retries.next()
    }

    fn rebase(&mut self, by: Duration) {
        self.retries.rebase(by);
    }

    fn check(&self) {
        assert!(self.newest.len() <= NOTICES_MAX, "the notices are bounded");
        let ordered = |(subject, n): (&Subject, &Newest)| self.by_serial.contains(&(n.notice.serial, *subject));
        let mirrored = self.newest.len() == self.by_serial.len() && self.newest.iter().all(ordered);
        assert!(mirrored, "each notice stands in both orders");
        assert!(self.sessions.values().all(|w| w.len() <= NOTICES_WAITING_MAX), "what a session waits for is bounded");
        let waiting: usize = self.sessions.values().map(BTreeMap::len).sum();
        assert!(self.waiting == waiting && waiting <= ALL_NOTICES_WAITING_MAX, "what all sessions wait for is counted");
        let retried = |(conn, w): (&ConnId, &Waiting)| w.is_empty() != self.retries.get(*conn).is_some();
        assert!(self.sessions.iter().all(retried), "exactly what waits is sent again");
    }
}

#[cfg(test)]
impl Server {
    /// Corruptions of a server with one waiting session, each with the message of the assertion that it must break.
    pub(super) const CORRUPTIONS: [(&str, fn(&mut Self)); 5] = [
        ("the notices are bounded", |s| {
            let one = s.newest.values().next().cloned().expect("a notice");
            s.newest = (0..).take(NOTICES_MAX + 1).map(|n| (numbered(n), one.clone())).collect();
        }),
        ("each notice stands in both orders", |s| s.by_serial.clear()),
        ("what a session waits for is bounded", |s| {
            let unacked = Unacked { serial: 1, sent: 0 };
            let many: Waiting = (0..).take(NOTICES_WAITING_MAX + 1).map(|n| (numbered(n), unacked)).collect();
            s.sessions.values_mut().for_each(|w| w.clone_from(&many));
        }),
        ("what all sessions wait for is counted", |s| s.waiting = 7),
        ("exactly what waits is sent again", |s| s.retries = Deadlines::default()),
    ];
}

#[cfg(test)]
fn numbered(n: u32) -> Subject {
    Subject::version(VersionId::numbered(n))
}
