//! Meetings: the coordinated hole punching of an introduced pair. Both clients open their NATs and report "opened";
//! then both are told "go" at the same time.
//!
//! The downloader's CN is the broker of the meeting. The uploader's CN only forwards both signals, through the DN that
//! forwarded the introduction.

use super::{Cn, Context, Metric, Output, Timer};
use crate::ids::{ConnId, IntroId, SessionId};
use crate::nat::connectivity::Role;
use crate::selection::blames::CopyId;
use crate::wire::control::{Go, Outcome, ToClient};
use crate::wire::directory::{PairOutcome, Route, Signal, Signalled, Step, ToDn};

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

impl Cn {
    /// Begins to forward the signals of an introduction that was delivered to an uploader, for a limited time.
    pub(super) fn add_uploader(&mut self, cx: &Context<'_>, intro: IntroId, uploader: IntroducedUploader) {
        if self.introduced_uploaders.len() < INTRODUCED_UPLOADERS_MAX {
            self.introduced_uploaders.insert(intro, uploader);
            self.common.timers.set(Timer::IntroducedUploader(intro), Some(cx.now.after(cx.cfg.broker.keep)));
        }
    }

    pub(super) fn on_uploader_timeout(&mut self, intro: IntroId) {
        self.introduced_uploaders.remove(&intro);
    }

    fn is_downloader_of(&self, intro: IntroId, conn: ConnId) -> bool {
        self.broker.peer(intro, Role::Downloader) == Some(&Party::Local(conn))
    }

    /// Handles a client's report that its NAT is open.
    pub(super) fn on_nat_opened(&mut self, cx: &mut Context<'_>, conn: ConnId, intro: IntroId) {
        if self.is_downloader_of(intro, conn) {
            let peers = self.broker.opened(cx.now, &cx.cfg.broker, intro, Role::Downloader);
            return self.send_go_to_both(cx, intro, peers);
        }
        if let Some(uploader) = self.introduced_uploaders.get(&intro).filter(|g| g.client == conn) {
            let signal = Signal { route: uploader.back, intro, what: Step::Opened };
            self.dns.send(cx, uploader.dn, ToDn::Signal(signal));
        }
    }

    /// Handles a signal ("opened" or "go") that another CN has sent through a DN.
    pub(super) fn on_signalled(&mut self, cx: &mut Context<'_>, dn: ConnId, signalled: Signalled) {
        let Signalled { session, intro, what } = signalled;
        let Some(client) = self.sessions.conn(session) else { return };
        match what {
            Step::Opened => {
                let other = self.broker.peer(intro, Role::Uploader);
                let its = matches!(other, Some(Party::ViaDn { dn: d, .. }) if *d == dn);
                if its && self.is_downloader_of(intro, client) {
                    let peers = self.broker.opened(cx.now, &cx.cfg.broker, intro, Role::Uploader);
                    self.send_go_to_both(cx, intro, peers);
                }
            }
            Step::Go if self.introduced_uploaders.get(&intro).is_some_and(|g| g.client == client) => {
                self.send_go(cx, client, intro)
            }
            Step::Go => {}
        }
    }

    fn send_go(&self, cx: &mut Context<'_>, conn: ConnId, intro: IntroId) {
        if self.sessions.is_connected(conn) {
            cx.push(Output::ClientSend { conn, msg: ToClient::Go(Go { intro }) });
        }
    }

    fn send_go_to_both(&self, cx: &mut Context<'_>, intro: IntroId, peers: Option<[Party; 2]>) {
        for party in peers.into_iter().flatten() {
            match party {
                Party::Local(conn) => self.send_go(cx, conn, intro),
                Party::ViaDn { dn, route, .. } => {
                    self.dns.send(cx, dn, ToDn::Signal(Signal { route, intro, what: Step::Go }));
                }
            }
        }
    }

    /// Sends "go" to the pairs that have waited long enough for both NATs to open.
    pub(super) fn on_meeting_timers(&mut self, cx: &mut Context<'_>) {
        while let Some((intro, peers)) = self.broker.pop_due(cx.now, &cx.cfg.broker) {
            self.send_go_to_both(cx, intro, peers);
        }
    }

    /// Handles a client's report of how a connection attempt ended. The downloader's report is counted, and forwarded
    /// to the DN, which learns from it which classes of NAT can connect.
    pub(super) fn on_outcome(&mut self, cx: &mut Context<'_>, conn: ConnId, outcome: Outcome) {
        let Outcome { intro, attempt } = outcome;
        if self.introduced_uploaders.get(&intro).is_some_and(|g| g.client == conn)
            && !self.is_downloader_of(intro, conn)
        {
            self.introduced_uploaders.remove(&intro);
            return self.common.timers.clear(Timer::IntroducedUploader(intro));
        }
        let connected = attempt.failure.is_none();
        cx.push(Output::Count(if connected { Metric::Connected } else { Metric::NotConnected }));
        if !self.is_downloader_of(intro, conn) {
            return;
        }
        let session: Option<SessionId> = self.sessions.get(conn).map(|s| s.id);
        let peers = self.broker.done(intro);
        let (Some([_, Party::ViaDn { dn, route, copy }]), Some(session)) = (peers, session) else { return };
        if connected {
            self.note_connected(cx, conn, intro, copy);
        }
        self.dns.send(cx, dn, ToDn::Outcome(PairOutcome { session, route, attempt }));
    }
}
