//! Meetings: the coordinated hole punching of an introduced pair. Both clients open their NATs and report "opened";
//! then both are told "go" at the same time.
//!
//! The downloader's CN is the broker of the meeting. The uploader's CN only forwards both signals, through the DN that
//! forwarded the introduction.

use super::blames::Connected;
use super::{Cn, Common, Context, Metric, Output, Timer};
use crate::ids::{ConnId, IntroId};
use crate::machine::Time;
use crate::nat::broker::Broker;
use crate::nat::connectivity::Role;
use crate::selection::blames::CopyId;
use crate::wire::control::{Go, Outcome, ToClient};
use crate::wire::directory::{PairOutcome, Route, Signal, Signalled, Step, ToDn};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

/// Maximum number of introduced uploaders between whom and the downloader's CN signals are forwarded; others connect
/// without waiting for the peer.
pub(super) const INTRODUCED_UPLOADERS_MAX: usize = 65_536;

/// One client of an introduced pair, and the way to reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Party {
    /// The downloader, a client of this CN.
    Local(ConnId),
    /// The uploader, a client of any CN, reached through a DN, and the copy for which it was introduced.
    ViaDn { dn: ConnId, route: Route, copy: CopyId },
}

/// Client of this CN that was introduced as uploader to a client of this or another CN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct IntroducedUploader {
    pub(super) client: ConnId,
    pub(super) dn: ConnId,
    /// Route (DN's link and session) by which a DN forwards signals to the downloader's CN.
    pub(super) back: Route,
}

/// Message of a meeting, with the connection that it goes over.
pub(super) enum Message {
    /// "Go" to a client of this CN.
    Go(ConnId, IntroId),
    /// Signal to the other client's CN, through this DN.
    Signal(ConnId, Signal),
}

/// Introduced pairs: those that are about to connect, and those that have connected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Meetings {
    /// Broker of the introductions that answered this CN's queries: coordinates when both peers connect.
    pub(super) broker: Broker<Party>,
    /// Uploaders among this CN's clients, by the introduction that was delivered to them.
    pub(super) introduced_uploaders: BTreeMap<IntroId, IntroducedUploader>,
    /// Introduced pairs that have connected, and whose downloaders may blame their uploaders.
    pub(super) connected: Connected,
}

impl Meetings {
    /// Begins to coordinate an introduced pair: the downloader, a client of this CN, and the uploader.
    pub(super) fn begin(&mut self, cx: &Context<'_>, intro: IntroId, parties: [Party; 2]) {
        self.broker.offered(cx.now, &cx.cfg.broker, intro, parties);
    }

    /// Begins to forward the signals of an introduction that was delivered to an uploader, for a limited time.
    pub(super) fn add_uploader(
        &mut self,
        cx: &Context<'_>,
        common: &mut Common,
        intro: IntroId,
        uploader: IntroducedUploader,
    ) {
        if self.introduced_uploaders.len() < INTRODUCED_UPLOADERS_MAX {
            self.introduced_uploaders.insert(intro, uploader);
            common.timers.set(Timer::IntroducedUploader(intro), Some(cx.now.after(cx.cfg.broker.keep)));
        }
    }

    pub(super) fn on_uploader_timeout(&mut self, intro: IntroId) {
        self.introduced_uploaders.remove(&intro);
    }

    /// Returns whether signals of this introduction are forwarded to or from an uploader.
    pub(super) fn has_uploader(&self, intro: IntroId) -> bool {
        self.introduced_uploaders.contains_key(&intro)
    }

    /// Returns the uploader of this introduction if this is its connection.
    fn uploader(&self, intro: IntroId, conn: ConnId) -> Option<&IntroducedUploader> {
        self.introduced_uploaders.get(&intro).filter(|uploader| uploader.client == conn)
    }

    fn is_downloader_of(&self, intro: IntroId, conn: ConnId) -> bool {
        self.broker.peer(intro, Role::Downloader) == Some(&Party::Local(conn))
    }

    /// Handles a client's report that its NAT is open.
    fn on_nat_opened(&mut self, cx: &Context<'_>, conn: ConnId, intro: IntroId) -> Vec<Message> {
        if self.is_downloader_of(intro, conn) {
            return go_to_both(intro, self.broker.opened(cx.now, &cx.cfg.broker, intro, Role::Downloader));
        }
        let opened = |uploader: &IntroducedUploader| {
            Message::Signal(uploader.dn, Signal { route: uploader.back, intro, what: Step::Opened })
        };
        self.uploader(intro, conn).map(opened).into_iter().collect()
    }

    /// Handles a signal ("opened" or "go") to a client of this CN, which another CN has sent through a DN.
    fn on_signalled(&mut self, cx: &Context<'_>, dn: ConnId, client: ConnId, signalled: Signalled) -> Vec<Message> {
        let Signalled { intro, what, .. } = signalled;
        match what {
            Step::Opened => {
                let other = self.broker.peer(intro, Role::Uploader);
                let its = matches!(other, Some(Party::ViaDn { dn: d, .. }) if *d == dn);
                if its && self.is_downloader_of(intro, client) {
                    return go_to_both(intro, self.broker.opened(cx.now, &cx.cfg.broker, intro, Role::Uploader));
                }
                Vec::new()
            }
            Step::Go => self.uploader(intro, client).map(|_| Message::Go(client, intro)).into_iter().collect(),
        }
    }

    /// Ends the wait of the pairs that have waited long enough for both NATs to open.
    fn pop_due(&mut self, cx: &Context<'_>) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some((intro, peers)) = self.broker.pop_due(cx.now, &cx.cfg.broker) {
            messages.extend(go_to_both(intro, peers));
        }
        messages
    }

    /// Ends the forwarding of signals if this client is the uploader of the introduction, and only that.
    fn end_of_uploader(&mut self, common: &mut Common, intro: IntroId, conn: ConnId) -> bool {
        let ends = self.uploader(intro, conn).is_some() && !self.is_downloader_of(intro, conn);
        if ends {
            self.introduced_uploaders.remove(&intro);
            common.timers.clear(Timer::IntroducedUploader(intro));
        }
        ends
    }

    /// Ends the coordination if this client is the downloader of the introduction, and returns the uploader.
    fn end_of_downloader(&mut self, intro: IntroId, conn: ConnId) -> Option<Party> {
        if !self.is_downloader_of(intro, conn) {
            return None;
        }
        self.broker.done(intro).map(|[_, uploader]| uploader)
    }

    /// Ends the coordination of all pairs.
    pub(super) fn stop(&mut self) {
        self.broker = Broker::default();
    }

    /// Returns when a pair has waited long enough.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.broker.poll_timeout()
    }

    pub(super) fn rebase(&mut self, by: Duration) {
        self.broker.rebase(by);
        self.connected.rebase(by);
    }

    /// Asserts that all tables are bounded, and that each introduced uploader is forgotten in time.
    pub(super) fn check(&self, common: &Common) {
        self.broker.check();
        self.connected.check();
        assert!(self.introduced_uploaders.len() <= INTRODUCED_UPLOADERS_MAX, "introduced uploaders are bounded");
        for intro in self.introduced_uploaders.keys() {
            let waits = common.timers.get(Timer::IntroducedUploader(*intro)).is_some();
            assert!(waits, "each introduced uploader has a time-out");
        }
    }
}

/// Returns the messages that tell both clients of a pair to connect.
fn go_to_both(intro: IntroId, peers: Option<[Party; 2]>) -> Vec<Message> {
    let go = |party| match party {
        Party::Local(conn) => Message::Go(conn, intro),
        Party::ViaDn { dn, route, .. } => Message::Signal(dn, Signal { route, intro, what: Step::Go }),
    };
    peers.into_iter().flatten().map(go).collect()
}

impl Cn {
    /// Handles a client's report that its NAT is open.
    pub(super) fn on_nat_opened(&mut self, cx: &mut Context<'_>, conn: ConnId, intro: IntroId) {
        let messages = self.meetings.on_nat_opened(cx, conn, intro);
        self.send_of_meetings(cx, messages);
    }

    /// Handles a signal ("opened" or "go") that another CN has sent through a DN.
    pub(super) fn on_signalled(&mut self, cx: &mut Context<'_>, dn: ConnId, signalled: Signalled) {
        let Some(client) = self.sessions.conn(signalled.session) else { return };
        let messages = self.meetings.on_signalled(cx, dn, client, signalled);
        self.send_of_meetings(cx, messages);
    }

    /// Sends "go" to the pairs that have waited long enough for both NATs to open.
    pub(super) fn on_meeting_timers(&mut self, cx: &mut Context<'_>) {
        let messages = self.meetings.pop_due(cx);
        self.send_of_meetings(cx, messages);
    }

    /// Sends what the meetings have to say, to those who are still connected.
    fn send_of_meetings(&self, cx: &mut Context<'_>, messages: Vec<Message>) {
        for message in messages {
            match message {
                Message::Go(conn, intro) if self.sessions.is_connected(conn) => {
                    cx.push(Output::ClientSend { conn, msg: ToClient::Go(Go { intro }) });
                }
                Message::Go(..) => {}
                Message::Signal(dn, signal) => self.dns.send(cx, dn, ToDn::Signal(signal)),
            }
        }
    }

    /// Handles a client's report of how a connection attempt ended. The downloader's report is counted, and forwarded
    /// to the DN, which learns from it which classes of NAT can connect.
    pub(super) fn on_outcome(&mut self, cx: &mut Context<'_>, conn: ConnId, outcome: Outcome) {
        let Outcome { intro, attempt } = outcome;
        if self.meetings.end_of_uploader(&mut self.common, intro, conn) {
            return;
        }
        let connected = attempt.failure.is_none();
        cx.push(Output::Count(if connected { Metric::Connected } else { Metric::NotConnected }));
        let uploader = self.meetings.end_of_downloader(intro, conn);
        let (Some(Party::ViaDn { dn, route, copy }), Some(client)) = (uploader, self.sessions.client(conn)) else {
            return;
        };
        let Some(session) = client.session().map(|s| s.id) else { return };
        if connected {
            self.meetings.connected.note(cx.now, client, intro, copy);
        }
        self.dns.send(cx, dn, ToDn::Outcome(PairOutcome { session, route, attempt }));
    }
}
